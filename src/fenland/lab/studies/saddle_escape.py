"""Escape from the saddle of a linear autoencoder (Fig. 1 of the SSAM paper): SGD, SAM and SSAM over the radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from fenland.arguments import check_among, check_whole
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import plain_number
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.analytic import one_thread
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PAPER = "Tan et al. 2025 (SSAM), Fig. 1"
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
NORMALIZATIONS = ("sum", "half", "samples", "elements")
NEARBY, CLOSE = 0.05, 0.1  # shares within which a slowdown agrees with theory, near the saddle and on the whole way


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        n: dimension of the identity, and number of samples (its unit vectors).
        normalization: the loss is c·‖W₂W₁ − I‖² with c = 1 ("sum"), 1/2 ("half"), 1/n ("samples"), 1/n² ("elements").
        lr: learning rate.
        epochs: of every trajectory.
        steps_per_epoch: steps with the full gradient in one epoch.
        spread: 1e-4 as the "variance" of the entries of the start or as their "deviation".
        initial: that 1e-4.
        products: rho·m of the unnormalised ascent, m = 2c the strength of the saddle.
        lengths: rho of the normalised ascent (w).
        seeds: of the start.
        escaped: share of the loss at the start below which a trajectory has escaped.
    """

    n: int = 20
    normalization: Literal["sum", "half", "samples", "elements"] = "sum"
    lr: float = 1e-3
    epochs: int = 500
    steps_per_epoch: int = 20
    spread: Literal["variance", "deviation"] = "variance"
    initial: float = 1e-4
    products: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 1.2, 2.0)
    lengths: tuple[float, ...] = (0.02, 0.1, 0.18, 0.3, 0.5)
    seeds: tuple[int, ...] = tuple(range(10))
    escaped: float = 0.5

    def __post_init__(self) -> None:
        for name in ("n", "epochs", "steps_per_epoch"):
            check_whole(name, getattr(self, name), 1)
        check_among("normalization", self.normalization, NORMALIZATIONS)
        check_among("spread", self.spread, ("variance", "deviation"))
        if any(product == 1 for product in self.products):
            raise ValueError("products: 1 is the border itself; take radii on both sides of it")

    @property
    def strength(self) -> float:
        """M = 2c: the Hessian at the origin has the eigenvalues ±m."""
        c = {"sum": 1.0, "half": 0.5, "samples": 1 / self.n, "elements": 1 / self.n**2}[self.normalization]
        return 2 * c

    @property
    def steps(self) -> int:
        """Of every trajectory."""
        return self.epochs * self.steps_per_epoch

    @property
    def deviation(self) -> float:
        """Standard deviation of the start's entries."""
        return math.sqrt(self.initial) if self.spread == "variance" else self.initial


class SaddleEscape(Study[Config]):
    """See the module."""

    name = "saddle-escape"
    title = "Escape from a saddle"
    source = "Tan et al. 2025, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy " \
        "(arXiv 2401.07250), Fig. 1"  # fmt: skip
    question = "How much longer than SGD do SAM and SSAM take to leave the saddle of a linear autoencoder?"
    choices = (
        "The loss is ‖W₂W₁ − I‖² summed over all elements (field normalization; half, samples and elements divide it "
        "by 2, n and n²). The origin then has the eigenvalues ±2. The paper does not say.",
        "An epoch has 20 steps, one for each of the 20 unit vectors that the identity consists of, all with the full "
        "gradient (field steps_per_epoch). With one full-batch step an epoch, 500 epochs end long before the escape.",
        "N(0, 1e-4) is read as the variance 1e-4, a standard deviation of 0.01 (field spread).",
        "A trajectory has escaped when its loss is below half of that at the start (field escaped).",
        "Unnormalised ascent (USAM; SSAM-U is the paper's SSAM): radii as the product rho·m, which decides. Normalised "
        "ascent (SAM, SSAM): radii as lengths. The caption does not say which ascent its curves have.",
    )
    presets = MappingProxyType(
        {
            "quick": Config(
                lr=4e-3, epochs=125, products=(0.2, 0.4, 0.6, 0.8, 1.2, 2.0), seeds=(0, 1, 2),
            ),
            "paper": Config(),
        }
    )  # fmt: skip

    def run(self, config: Config, lab: Lab) -> Tables:
        """One piece a method, all its radii and seeds in one program."""
        names = ("n", "normalization", "lr", "epochs", "steps_per_epoch", "spread", "initial", "seeds", "escaped")
        key = {name: getattr(config, name) for name in names}
        plans: list[tuple[str, tuple[float, ...]]] = [("SGD", (0.0,))]
        plans += [(method, tuple(p / config.strength for p in config.products)) for method in UNNORMALISED]
        plans += [(method, config.lengths) for method in NORMALISED]
        pieces = [
            Piece("curves", {**key, "method": method, "radii": radii}, partial(_curves, config, method, radii))
            for method, radii in plans
        ]
        curves, escapes = [], []
        for piece in lab.keep_all(pieces, "methods"):
            last = piece[piece["steps"] == piece["steps"].max()]
            escapes.append(last[["method", "rho", "seed", "hit", "rate", "start", "descending", "length"]])
            curves.append(piece[["method", "rho", "seed", "steps", "loss"]])
        return {
            "escapes": pd.concat(escapes, ignore_index=True),
            "curves": pd.concat(curves, ignore_index=True),
        }

    def figures(self, config: Config, tables: Tables) -> list[Drawn]:
        """Fig. 1's loss curves for both ascents, and the escape time against the radius."""
        from fenland.lab.studies.saddle_escape_figures import loss, times

        m = config.strength
        return [
            loss(config, tables, UNNORMALISED, [p / m for p in config.products], "unnormalised"),
            loss(config, tables, NORMALISED, list(config.lengths), "normalised"),
            times(config, tables),
        ]

    def verdicts(self, config: Config, tables: Tables) -> list[Verdict]:
        """Against theory first, then the paper's order."""
        escapes = tables["escapes"]
        return [
            _reading(config, escapes),
            *_slowdown(config, escapes),
            *_order(config, escapes),
            *_trapped(config, escapes),
            *_normalised(config, escapes),
        ]


def _curves(config: Config, method: str, radii: tuple[float, ...]) -> pd.DataFrame:
    """Loss by steps of each radius and seed, with the step of escape (NaN: never), growth and norms."""
    import torch

    from fenland.lab.replicas import LinearAutoencoder, grid, run

    problem = LinearAutoencoder(config.n, config.normalization)
    start = _start(config)
    target = config.escaped * problem.value(start)
    goals = target.repeat(len(radii))
    every = max(1, config.steps // 250)
    with one_thread():
        plan = grid(start, rho=radii, lr=config.lr)
        # One block holds 20 replicas of this problem, so the goal has to find its own rows: one for all is the least.
        lowest = float(goals.min())
        done = run(
            problem, method, plan, config.steps, reached=lambda w: problem.value(w) <= lowest, sample_every=every
        )
        losses = torch.stack([problem.value([x[t] for x in done.samples]) for t in range(len(done.sampled))])
    hit = done.lost if done.first_hit is None else done.first_hit
    first, second = start
    descending = _descending(start)
    sizes = torch.stack([_descending([x[t] for x in done.samples]) for t in range(len(done.sampled))])
    length = torch.stack([first.flatten(1).norm(dim=1), second.flatten(1).norm(dim=1)]).norm(dim=0)
    end = torch.stack([x.flatten(1).norm(dim=1) for x in done.w]).norm(dim=0)
    parts = []
    for i, rho in enumerate(radii):
        for j, seed in enumerate(config.seeds):
            k = i * len(config.seeds) + j
            taken = int(hit[k])
            parts.append(
                pd.DataFrame(
                    {
                        "method": method, "rho": rho, "seed": seed, "steps": done.sampled,
                        "loss": losses[:, k].tolist(), "hit": float(taken) if taken >= 0 else math.nan,
                        "rate": growth(done.sampled, sizes[:, k].tolist()), "start": float(length[j]),
                        "descending": float(descending[j]), "length": float(end[k]),
                    }
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _descending(w: Sequence[Tensor]) -> Tensor:
    """Norm of the part of each point in the eigenspace of -m, which is W1 = W2^T: (R,)."""
    first, second = w
    size: Tensor = ((first + second.mT) / math.sqrt(2)).flatten(1).norm(dim=1)
    return size


def growth(steps: Sequence[int], sizes: Sequence[float]) -> float:
    """Rate a step at which the descending part grows while it is 1.5 to 3 times its first size; NaN if it does not.

    That is late enough for a rule that looks at ||g|| to have lost the other part, and early enough to be near.
    """
    inside = [(t, size) for t, size in zip(steps, sizes, strict=True) if 1.5 <= size / sizes[0] <= 3]
    if len(inside) < 2 or inside[-1][0] == inside[0][0] or sizes[-1] < 3 * sizes[0]:
        return math.nan
    return math.log(inside[-1][1] / inside[0][1]) / (inside[-1][0] - inside[0][0])


def _start(config: Config) -> list[Tensor]:
    import torch

    draws = []
    for seed in config.seeds:
        generator = torch.Generator().manual_seed(seed)
        draws.append(torch.randn(2, config.n, config.n, generator=generator, dtype=torch.float64) * config.deviation)
    both = torch.stack(draws, 1)
    return [both[0].contiguous(), both[1].contiguous()]


def slowdown(escapes: pd.DataFrame, method: str, rho: float, column: str = "hit") -> tuple[Interval, int]:
    """Steps to the escape over SGD's from the same start, mean over seeds with its interval; and how many escaped.

    With ``column="rate"`` SGD's rate of growth near the saddle over the method's instead.
    """
    base = escapes[escapes["method"] == "SGD"].set_index("seed")[column]
    rows = escapes[(escapes["method"] == method) & np.isclose(escapes["rho"], rho)].set_index("seed")[column]
    ratio = (rows / base if column == "hit" else base / rows).dropna()
    return interval(ratio), int(rows.notna().sum())


def _reading(config: Config, escapes: pd.DataFrame) -> Verdict:
    """Whether the published length of training is enough, and whether one step an epoch would be."""
    hits = interval(escapes.loc[escapes["method"] == "SGD", "hit"])
    epochs = hits.mean / config.steps_per_epoch
    holds = hits.n == len(config.seeds) and hits.mean > config.epochs
    return Verdict(
        f"SGD escapes within {config.epochs} epochs of {config.steps_per_epoch} steps, and not in {config.epochs} "
        "full-batch steps",
        f"reading of {PAPER}",
        f"more than {config.epochs} and at most {config.steps} steps",
        f"{hits.mean:.0f} steps{_band(hits, 0)} = {epochs:.0f} epochs, in {hits.n} of {len(config.seeds)} seeds",
        holds,
        f"learning rate {config.lr:g}, eigenvalues ±{config.strength:g}, start with deviation {config.deviation:g}",
        figure="times",
    )


def free_products(config: Config) -> list[float]:
    """Products rho*m that do not trap."""
    return [p for p in config.products if p < 1]


def _slowdown(config: Config, escapes: pd.DataFrame) -> list[Verdict]:
    below = free_products(config)
    if not below:
        return []
    found = []
    for column, claim, limit, note in (
        (
            "rate", "Near the saddle unnormalised SAM is slower than SGD by 1/(1 − rho·m)", NEARBY,
            "SGD's rate of growth along the descending directions over SAM's, while they are 1.5 to 3 times as long as "
            "at the start.",
        ),
        (
            "hit", "Down to half of the loss unnormalised SAM takes 1/(1 − rho·m) times SGD's steps", CLOSE,
            "Theory is of the saddle's neighbourhood. On the way down the curvature falls and rho·m with it, so that "
            "the last part of the escape is slowed less.",
        ),
    ):  # fmt: skip
        words, good = [], []
        for p in below:
            ratio, escaped = slowdown(escapes, "USAM", p / config.strength, column)
            good.append(escaped == len(config.seeds) and abs(ratio.mean * (1 - p) - 1) <= limit)
            words.append(f"{ratio.mean:.2f}{_band(ratio, 2)} at {p:g}" if escaped else f"no escape at {p:g}")
        expected = ", ".join(f"{1 / (1 - p):.2f} at {p:g}" for p in below)
        found.append(
            Verdict(
                claim, "theory (fenland.theory), for Fig. 1", f"{expected}, each within {100 * limit:g} %",
                ", ".join(words), all(good), f"By rho·m. {note}", figure="times",
            )
        )  # fmt: skip
    return found


def _order(config: Config, escapes: pd.DataFrame) -> list[Verdict]:
    below = free_products(config)
    if not below:
        return []
    words, good = [], []
    for p in below:
        (sam, first), (ssam, second) = (slowdown(escapes, name, p / config.strength) for name in UNNORMALISED)
        slower = not first or sam.mean > ssam.mean
        good.append(bool(second) and ssam.mean >= 1 and slower)
        words.append(f"{p:g}: 1 ≤ {ssam.mean:.2f}{_band(ssam, 2)} < {sam.mean if first else math.inf:.2f}")
    return [
        Verdict(
            "Below rho·m = 1 SGD is the fastest, then SSAM, then SAM (unnormalised ascent)",
            f"{PAPER}; fenland.theory",
            "SGD ≤ SSAM < SAM at every radius",
            "; ".join(words),
            all(good),
            "Steps over SGD's, by rho·m: SSAM with its interval, then SAM.",
            figure="times",
        )
    ]


def _trapped(config: Config, escapes: pd.DataFrame) -> list[Verdict]:
    beyond = [p for p in config.products if p > 1]
    found = []
    for method in UNNORMALISED if beyond else ():
        rows = [
            escapes[(escapes["method"] == method) & np.isclose(escapes["rho"], p / config.strength)] for p in beyond
        ]
        table = pd.concat(rows)
        escaped = int(table["hit"].notna().sum())
        nearer = int((table["length"] < table["start"]).sum())
        farthest = plain_number(float(f"{(table['length'] / table['start']).max():.2g}"))
        found.append(
            Verdict(
                f"Past rho·m = 1 {method} is trapped at the saddle",
                "theory (fenland.theory)" + ("; renormalising turns no direction" if method == "SSAM-U" else ""),
                "no trajectory escapes, and each ends nearer to the saddle than it began",
                f"{escaped} of {len(table)} escaped; {nearer} ended nearer (the farthest at {farthest} of its start)",
                escaped == 0 and nearer == len(table),
                f"rho·m = {', '.join(f'{p:g}' for p in beyond)}; {config.steps} steps",
                figure="unnormalised",
            )
        )
    return found


def _normalised(config: Config, escapes: pd.DataFrame) -> list[Verdict]:
    rows = escapes[escapes["method"].isin(NORMALISED)]
    if rows.empty:
        return []
    free, held = rows["rho"] < rows["descending"], rows["rho"] > rows["start"]
    wrong = rows[(free & rows["hit"].isna()) | (held & rows["hit"].notna())]
    decided = int((free | held).sum())
    words, good = [], []
    for rho in config.lengths:
        (sam, first), (ssam, second) = (slowdown(escapes, name, rho) for name in NORMALISED)
        if not (first or second):
            words.append(f"{rho:g}: neither escapes")
            continue
        good.append(bool(second) and ssam.mean >= 1 and (not first or sam.mean > ssam.mean))
        words.append(f"{rho:g}: SSAM {_ratio(ssam, second)}, SAM {_ratio(sam, first)}")
    return [
        Verdict(
            "The normalised ascent is trapped from the start where ‖g‖ < rho·m, and free where the descending part "
            "alone is larger",
            "theory (‖g‖ = m·‖w‖ here)",
            "trapped where rho > ‖w‖, free where rho < ‖descending part of w‖, at the start",
            f"{decided - len(wrong)} of {decided} trajectories of SAM and SSAM; {len(rows) - decided} lie between",
            wrong.empty if decided else None,
            f"‖w‖ about {rows['start'].mean():.3f}, its descending part about {rows['descending'].mean():.3f}",
            figure="normalised",
        ),
        Verdict(
            "SSAM leaves the saddle before SAM (normalised ascent)",
            PAPER,
            "SGD ≤ SSAM < SAM at every radius where one of them escapes",
            "; ".join(words),
            all(good) if good else None,
            "Steps over SGD's, by rho.",
            figure="times",
        ),
    ]


def _ratio(found: Interval, escaped: int) -> str:
    return f"{found.mean:.2f}{_band(found, 2)}" if escaped else "trapped"


def _band(found: Interval, digits: int) -> str:
    if not math.isfinite(found.low):
        return ""
    return f" ({found.low:.{digits}f} to {found.high:.{digits}f})"
