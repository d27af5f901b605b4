"""Escape from the saddle of a linear autoencoder (Fig. 1 of the SSAM paper): SGD, SAM and SSAM over the radius."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from fenland.arguments import check_among, check_whole
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel, plain_number
from fenland.lab.replicas.autoencoder import loss_curves
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study import Claim, Plot, Study
from fenland.lab.study.parts import Finding, Lab, Measured, Piece, Source, Tables
from fenland.lab.study.quantities import statement
from fenland.lab.study.recipes import joined

PAPER = Source("Tan et al. 2025 (SSAM), Fig. 1")
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
NORMALIZATIONS = ("sum", "half", "samples", "elements")
# Sentence, share within which theory agrees, note; near the saddle and on the whole way.
SLOWDOWNS = {
    "rate": (
        "Near the saddle unnormalised SAM is slower than SGD by 1/(1 − rho·m)", 0.05,
        "SGD's rate of growth along the descending directions over SAM's, while they are 1.5 to 3 times as long as at "
        "the start.",
    ),
    "hit": (
        "Down to half of the loss unnormalised SAM takes 1/(1 − rho·m) times SGD's steps", 0.1,
        "Theory is of the saddle's neighbourhood. On the way down the curvature falls and rho·m with it, so that the "
        "last part of the escape is slowed less.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is run."""

    n: int = 20  # dimension of the identity, and number of samples (its unit vectors)
    # the loss is c·‖W₂W₁ − I‖² with c = 1 ("sum"), 1/2 ("half"), 1/n ("samples"), 1/n² ("elements")
    normalization: Literal["sum", "half", "samples", "elements"] = "sum"
    lr: float = 1e-3  # learning rate
    epochs: int = 500  # of every trajectory
    steps_per_epoch: int = 20  # steps with the full gradient in one epoch
    # 1e-4 as the "variance" of the entries of the start or as their "deviation"
    spread: Literal["variance", "deviation"] = "variance"
    initial: float = 1e-4  # that 1e-4
    # rho·m of the unnormalised ascent, m = 2c the strength of the saddle
    products: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 1.2, 2.0)
    lengths: tuple[float, ...] = (0.02, 0.1, 0.18, 0.3, 0.5)  # rho of the normalised ascent (w)
    seeds: tuple[int, ...] = tuple(range(10))  # of the start
    escaped: float = 0.5  # share of the loss at the start below which a trajectory has escaped

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


def measure(config: Config, lab: Lab) -> Tables:
    """One piece a method, all its radii and seeds in one program."""
    names = ("n", "normalization", "lr", "steps", "deviation", "seeds", "escaped")
    given = {name: getattr(config, name) for name in names}
    plans: list[tuple[str, tuple[float, ...]]] = [("SGD", (0.0,))]
    plans += [(method, tuple(p / config.strength for p in config.products)) for method in UNNORMALISED]
    plans += [(method, config.lengths) for method in NORMALISED]
    keys = [{**given, "method": method, "radii": radii} for method, radii in plans]
    pieces = [Piece("curves", key, partial(loss_curves, **key)) for key in keys]
    whole = pd.concat(lab.keep_all(pieces, "methods"), ignore_index=True)
    last = whole[whole["steps"] == whole["steps"].max()]
    ends = last[["method", "rho", "seed", "hit", "rate", "start", "descending", "length"]].reset_index(drop=True)
    return {"escapes": ends, "curves": whole[["method", "rho", "seed", "steps", "loss"]]}


def ratio(measured: Measured, method: str, rho: float, column: str = "hit") -> tuple[Interval, int]:
    """Steps to the escape over SGD's from the same start, mean over seeds with its interval; and how many escaped.

    With ``column="rate"`` SGD's rate of growth near the saddle over the method's instead.
    """
    table = measured["escapes"]
    base = table[table["method"] == "SGD"].set_index("seed")[column]
    rows = table[(table["method"] == method) & np.isclose(table["rho"], rho)].set_index("seed")[column]
    found = (rows / base if column == "hit" else base / rows).dropna()
    return interval(found), int(rows.notna().sum())


def free_products(config: Config) -> list[float]:
    """Products rho*m that do not trap."""
    return [p for p in config.products if p < 1]


def claims(measured: Measured) -> Iterator[Claim]:
    """Against theory first, then the paper's order."""
    config, beyond = measured.config, [p for p in measured.config.products if p > 1]
    yield Claim(
        f"SGD escapes within {config.epochs} epochs of {config.steps_per_epoch} steps, and not in {config.epochs} "
        "full-batch steps", Source(f"reading of {PAPER}"), sgd_escapes, "times", notes=(
            f"learning rate {config.lr:g}, eigenvalues ±{config.strength:g}, start with deviation {config.deviation:g}",
        ),
    )  # fmt: skip
    if free_products(config):
        for column, (sentence, limit, note) in SLOWDOWNS.items():
            law = Source("theory (fenland.theory), for Fig. 1", ours=True)
            yield Claim(sentence, law, slowdown(column, limit), "times", notes=(f"By rho·m. {note}",))
        yield Claim(
            "Below rho·m = 1 SGD is the fastest, then SSAM, then SAM (unnormalised ascent)",
            Source(f"{PAPER}; fenland.theory"), order, "times",
            notes=("Steps over SGD's, by rho·m: SSAM with its interval, then SAM.",),
        )  # fmt: skip
    for method in UNNORMALISED if beyond else ():
        turns = "; renormalising turns no direction" if method == "SSAM-U" else ""
        yield Claim(
            f"Past rho·m = 1 {method} is trapped at the saddle", Source(f"theory (fenland.theory){turns}", ours=True),
            trapped(method, beyond), "unnormalised",
            notes=(f"rho·m = {', '.join(f'{p:g}' for p in beyond)}; {config.steps} steps",),
        )  # fmt: skip
    if measured["escapes"]["method"].isin(NORMALISED).any():
        yield Claim(
            "The normalised ascent is trapped from the start where ‖g‖ < rho·m, and free where the descending part "
            "alone is larger", Source("theory (‖g‖ = m·‖w‖ here)", ours=True), regions, "normalised",
        )  # fmt: skip
        yield Claim(
            "SSAM leaves the saddle before SAM (normalised ascent)", PAPER, normalised_order, "times",
            notes=("Steps over SGD's, by rho.",),
        )  # fmt: skip


def sgd_escapes(measured: Measured) -> Finding:
    """Whether the published length of training is enough, and whether one step an epoch would be."""
    config, table = measured.config, measured["escapes"]
    hits = interval(table.loc[table["method"] == "SGD", "hit"])
    return Finding(
        f"more than {config.epochs} and at most {config.steps} steps",
        f"{hits.mean:.0f} steps{_band(hits, 0)} = {hits.mean / config.steps_per_epoch:.0f} epochs, in {hits.n} of "
        f"{len(config.seeds)} seeds",
        hits.n == len(config.seeds) and hits.mean > config.epochs,
    )


@statement
def slowdown(measured: Measured, column: str, limit: float) -> Finding:
    """SAM's slowness by rho*m against 1/(1 - rho*m)."""
    config, words, good = measured.config, [], []
    below = free_products(config)
    for p in below:
        found, escaped = ratio(measured, "USAM", p / config.strength, column)
        good.append(escaped == len(config.seeds) and abs(found.mean * (1 - p) - 1) <= limit)
        words.append(f"{found.mean:.2f}{_band(found, 2)} at {p:g}" if escaped else f"no escape at {p:g}")
    expected = ", ".join(f"{1 / (1 - p):.2f} at {p:g}" for p in below)
    return Finding(f"{expected}, each within {100 * limit:g} %", ", ".join(words), all(good))


def order(measured: Measured) -> Finding:
    """SGD, SSAM, SAM at each radius below the threshold."""
    words, good = [], []
    for p in free_products(measured.config):
        (sam, first), (ssam, second) = (ratio(measured, name, p / measured.config.strength) for name in UNNORMALISED)
        good.append(bool(second) and ssam.mean >= 1 and (not first or sam.mean > ssam.mean))
        words.append(f"{p:g}: 1 ≤ {ssam.mean:.2f}{_band(ssam, 2)} < {sam.mean if first else math.inf:.2f}")
    return Finding("SGD ≤ SSAM < SAM at every radius", "; ".join(words), all(good))


@statement
def trapped(measured: Measured, method: str, products: Sequence[float]) -> Finding:
    """No trajectory escapes past the threshold."""
    rows = measured["escapes"]
    past = [np.isclose(rows["rho"], p / measured.config.strength) for p in products]
    table = rows[(rows["method"] == method) & np.any(past, axis=0)]
    escaped, nearer = int(table["hit"].notna().sum()), int((table["length"] < table["start"]).sum())
    farthest = plain_number(float(f"{(table['length'] / table['start']).max():.2g}"))
    return Finding(
        "no trajectory escapes, and each ends nearer to the saddle than it began",
        f"{escaped} of {len(table)} escaped; {nearer} ended nearer (the farthest at {farthest} of its start)",
        escaped == 0 and nearer == len(table),
    )


def regions(measured: Measured) -> Finding:
    """Who is trapped by the length of the start."""
    rows = measured["escapes"]
    rows = rows[rows["method"].isin(NORMALISED)]
    free, held = rows["rho"] < rows["descending"], rows["rho"] > rows["start"]
    wrong, decided = int(((free & rows["hit"].isna()) | (held & rows["hit"].notna())).sum()), int((free | held).sum())
    return Finding(
        "trapped where rho > ‖w‖, free where rho < ‖descending part of w‖, at the start",
        f"{decided - wrong} of {decided} trajectories of SAM and SSAM; {len(rows) - decided} lie between",
        wrong == 0 if decided else None,
        f"‖w‖ about {rows['start'].mean():.3f}, its descending part about {rows['descending'].mean():.3f}",
        "Not decided: every start lies between.",
    )


def normalised_order(measured: Measured) -> Finding:
    """SGD, SSAM, SAM at each radius where one of them escapes."""
    words, good = [], []
    for rho in measured.config.lengths:
        (sam, first), (ssam, second) = (ratio(measured, name, rho) for name in NORMALISED)
        if not (first or second):
            words.append(f"{rho:g}: neither escapes")
            continue
        good.append(bool(second) and ssam.mean >= 1 and (not first or sam.mean > ssam.mean))
        shown = [f"{x.mean:.2f}{_band(x, 2)}" if n else "trapped" for x, n in ((ssam, second), (sam, first))]
        words.append(f"{rho:g}: SSAM {shown[0]}, SAM {shown[1]}")
    return Finding(
        "SGD ≤ SSAM < SAM at every radius where one of them escapes", "; ".join(words), all(good) if good else None,
        open="Not decided: neither escapes at any radius.",
    )  # fmt: skip


def _band(found: Interval, digits: int) -> str:
    return f" ({found.low:.{digits}f} to {found.high:.{digits}f})" if math.isfinite(found.low) else ""


def loss_by_epoch(methods: tuple[str, ...], name: str) -> Plot:
    """Mean loss over seeds by epoch, one panel a radius."""

    def panels(measured: Measured) -> list[Panel]:
        config, found = measured.config, []
        unnormalised = methods == UNNORMALISED
        means = measured["curves"].groupby(["method", "rho", "steps"], as_index=False)["loss"].mean()
        for place in config.products if unnormalised else config.lengths:
            rho, lines = place / (config.strength if unnormalised else 1.0), []
            for method in ("SGD", *methods):
                rows = means[(means["method"] == method) & np.isclose(means["rho"], 0.0 if method == "SGD" else rho)]
                lines.append(Line(method, rows["steps"] / config.steps_per_epoch, rows["loss"]))
            found.append(Panel(lines, "epoch", f"{'rho·m' if unnormalised else 'rho'} = {place:g}"))
        return found

    def caption(measured: Measured) -> str:
        return f"Means over {len(measured.config.seeds)} seeds. SGD's curve is the same in every panel."

    return Plot(name, f"Loss, {name} ascent", panels, caption, METHODS, columns=2, height=135)


def times(measured: Measured) -> list[Panel]:
    """Escape times against the radius, both ascents."""
    config, below = measured.config, free_products(measured.config)
    panels = []
    for methods, places, scale, along, words in (
        (UNNORMALISED, below, 1 / config.strength, "rho·m", "unnormalised ascent; line: 1/(1 − rho·m)"),
        (NORMALISED, config.lengths, 1.0, "rho", "normalised ascent"),
    ):
        found = {method: {x: ratio(measured, method, x * scale)[0] for x in places} for method in methods}
        lines = [
            joined(method, {x: each for x, each in points.items() if each.n == len(config.seeds)})
            for method, points in found.items()
        ]
        if methods == UNNORMALISED:
            dense = np.linspace(0, max([*below, 0.5]), 60)
            lines.append(Line("USAM", dense, 1 / (1 - dense), kind="theory"))
        panels.append(Panel(lines, along, words, log_y=True, marks=(Mark(1.0, "SGD", "y"),)))
    return panels


STUDY = Study(
    name="saddle-escape",
    title="Escape from a saddle",
    source=Source("Tan et al. 2025, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy "
                  "(arXiv 2401.07250), Fig. 1"),
    question="How much longer than SGD do SAM and SSAM take to leave the saddle of a linear autoencoder?",
    config=Config,
    quick={"lr": 4e-3, "epochs": 125, "products": (0.2, 0.4, 0.6, 0.8, 1.2, 2.0), "seeds": (0, 1, 2)},
    runs=measure,
    claims=claims,
    figures=[
        loss_by_epoch(UNNORMALISED, "unnormalised"),
        loss_by_epoch(NORMALISED, "normalised"),
        Plot(
            "times", "Steps to escape, as a multiple of SGD's", times, "Means over seeds with 95 % intervals, from the "
            "same starts; radii at which a seed never escapes are left out.", METHODS, height=170,
        ),
    ],
    choices=(
        "The loss is ‖W₂W₁ − I‖² summed over all elements (field normalization; half, samples and elements divide it "
        "by 2, n and n²). The origin then has the eigenvalues ±2. The paper does not say.",
        "An epoch has 20 steps, one for each of the 20 unit vectors that the identity consists of, all with the full "
        "gradient (field steps_per_epoch). With one full-batch step an epoch, 500 epochs end long before the escape.",
        "N(0, 1e-4) is read as the variance 1e-4, a standard deviation of 0.01 (field spread).",
        "A trajectory has escaped when its loss is below half of that at the start (field escaped).",
        "Unnormalised ascent (USAM; SSAM-U is the paper's SSAM): radii as the product rho·m, which decides. Normalised "
        "ascent (SAM, SSAM): radii as lengths. The caption does not say which ascent its curves have.",
    ),
)  # fmt: skip
