"""The quartic of the SSAM paper (Fig. 2): at which learning rates training succeeds, with both ascents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.study.analytic import one_thread
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict
from fenland.theory.quadratic import cycle_amplitude, stable_lr

if TYPE_CHECKING:
    from torch import Tensor


CURVATURE = 2 + math.sqrt(2)  # the largest Hessian eigenvalue at both minima
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
SOURCE = "Tan et al. 2025 (SSAM), Fig. 2"
# A quadratic's cycle is compared where cycle and ascent point stay this near: further out the quartic is no quadratic
# (at rho = 0.5 the amplitude is 0.64 of the formula).
NEAR = 0.15


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        radii: rho of the unnormalised ascent (w per gradient).
        lengths: rho of the normalised ascent (w).
        grid: step of the learning rates.
        coarse: distance of the learning rates where success does not end; a multiple of ``grid``.
        highest: learning rate.
        starts: drawn uniformly from the box, for each learning rate and radius the same.
        box: half its side, around the origin.
        steps: of every trajectory.
        tolerance: distance to a minimum that counts as success, after the last step.
        seed: of the starts.
    """

    radii: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    lengths: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5)
    grid: float = 0.01
    coarse: float = 0.01
    highest: float = 0.68
    starts: int = 10_000
    box: float = 2.0
    steps: int = 2000
    tolerance: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("grid", "coarse", "highest", "box", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be > 0")
        ratio = self.coarse / self.grid
        if abs(ratio - round(ratio)) > 1e-9:
            raise ValueError(f"coarse = {self.coarse}: must be a whole multiple of grid = {self.grid}")
        for name in ("starts", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")


class QuarticBasin(Study[Config]):
    """See the module."""

    name = "quartic"
    title = "Learning rates at which a quartic can be trained"
    source = "Tan et al. 2025, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy " \
        "(arXiv 2401.07250), Fig. 2"  # fmt: skip
    question = "Up to which learning rate do SGD, SAM and SSAM reach a minimum of x₁⁴/4 − x₁x₂ + x₂²/2?"
    choices = (
        "Starts are uniform in a box around the origin (field box); success is a distance below the tolerance after "
        "the last step. The paper gives neither box nor tolerance nor steps.",
        "The critical learning rate lies in the middle between the last one at which a start succeeds and the next of "
        "the grid. Where the grid is coarse at first, the gap in which success ends is filled.",
        "Unnormalised ascent (rho in w per gradient): USAM and SSAM-U, the paper's SSAM. Normalised ascent (rho in w): "
        "SAM and SSAM. The caption does not say which one its curves have; both are run.",
        "A start that is further out than 1000 is lost and counts as a failure.",
    )
    presets = MappingProxyType({"quick": Config(coarse=0.04, starts=1000, steps=400), "paper": Config()})

    def run(self, config: Config, lab: Lab) -> Tables:
        """One piece a method and radius."""
        plans = [("SGD", 0.0)]
        plans += [(method, rho) for method in UNNORMALISED for rho in config.radii]
        plans += [(method, rho) for method in NORMALISED for rho in config.lengths]
        names = ("grid", "coarse", "highest", "starts", "box", "steps", "tolerance", "seed")
        key = {name: getattr(config, name) for name in names}
        pieces = [
            Piece("rates", {**key, "method": method, "rho": rho}, partial(_rates, config, method, rho))
            for method, rho in plans
        ]
        return {"rates": pd.concat(lab.keep_all(pieces, "methods and radii"), ignore_index=True)}

    def figures(self, config: Config, tables: Tables) -> list[Drawn]:
        """The contour plot, success against learning rate for both ascents, and SAM's final distance."""
        from fenland.lab.studies.quartic_figures import contours, distance, success

        rates = tables["rates"]
        return [
            contours(),
            distance(config, rates, "amplitude", "Amplitude of normalised SAM's cycle"),
            success(config, rates, UNNORMALISED, config.radii, "unnormalised", "Success, unnormalised ascent"),
            success(config, rates, NORMALISED, config.lengths, "normalised", "Success, normalised ascent"),
            distance(config, rates, "distance", "Normalised SAM's distance from the minimum"),
        ]

    def verdicts(self, config: Config, tables: Tables) -> list[Verdict]:
        """Critical learning rates against theory, and what the normalised ascent does instead."""
        rates = tables["rates"]
        return [
            _critical(config, rates, "SGD", (0.0,)),
            *(_critical(config, rates, method, config.radii) for method in UNNORMALISED if config.radii),
            *_wider(config, rates),
            *_cycle(config, rates),
            *_settles(config, rates),
        ]


def _rates(config: Config, method: str, rho: float) -> pd.DataFrame:
    """Success by learning rate: the coarse grid first, then the gap where success ends."""
    per = round(config.coarse / config.grid)
    last = round(config.highest / config.grid)
    table = _measure(config, method, rho, [k * config.grid for k in range(per, last + 1, per)])
    alive = table.loc[table["successes"] > 0, "lr"]
    if per > 1 and len(alive):
        begin = round(float(alive.max()) / config.grid)
        inner = [k * config.grid for k in range(begin + 1, min(begin + per, last + 1))]
        if inner:
            table = pd.concat([table, _measure(config, method, rho, inner)]).sort_values("lr", ignore_index=True)
    return table


def _measure(config: Config, method: str, rho: float, lrs: list[float]) -> pd.DataFrame:
    import torch

    from fenland.lab.replicas import Grid, Quartic, grid, run

    problem = Quartic()
    generator = torch.Generator().manual_seed(config.seed)
    points = (2 * torch.rand(config.starts, 2, generator=generator, dtype=torch.float64) - 1) * config.box
    plan = grid(problem.pack(points), rho=rho, lr=lrs)
    with one_thread():
        done = run(problem, method, plan, config.steps, bound=1e3)
        # These rules keep nothing between steps: a run from the last points is the next step.
        after = run(problem, method, Grid(plan.rho, plan.lr, plan.momentum, done.w, plan.shape), 1, bound=1e3)
    w = problem.unpack(done.w).reshape(len(lrs), config.starts, 2)
    away = torch.stack([(w - torch.tensor(point, dtype=torch.float64)).norm(dim=-1) for point in problem.minima])
    distance = away.min(0).values
    lost = (done.lost >= 0).reshape(len(lrs), config.starts)
    # The normalised ascent is drawn to the saddle where ||g|| < rho*m; what it has caught stays within |w| <= rho.
    held = (w.norm(dim=-1) <= max(rho, config.tolerance)) & ~lost
    free = ~(lost | held)
    jump = (problem.unpack(after.w).reshape(w.shape) - w).norm(dim=-1) / 2
    return pd.DataFrame(
        {
            "method": method, "rho": rho, "lr": lrs, "starts": config.starts,
            "successes": ((distance <= config.tolerance) & ~lost).sum(1).tolist(), "lost": lost.sum(1).tolist(),
            "held": held.sum(1).tolist(), "distance": _median(distance, free), "amplitude": _median(jump, free),
        }
    )  # fmt: skip


def _median(values: Tensor, which: Tensor) -> list[float]:
    import torch

    numbers: list[float] = torch.where(which, values, torch.nan).nanmedian(1).values.tolist()
    return numbers


def rows_of(rates: pd.DataFrame, method: str, rho: float) -> pd.DataFrame:
    """The rows of a method and radius, by learning rate."""
    return rates[(rates["method"] == method) & (rates["rho"] == rho)].sort_values("lr")


def critical_lr(rows: pd.DataFrame) -> float:
    """The middle between the last learning rate with a success and the next; NaN where success never ends or begins."""
    lrs, some = rows["lr"].to_numpy(float), rows["successes"].to_numpy() > 0
    if not some.any() or some[-1]:
        return math.nan
    last = int(np.flatnonzero(some)[-1])
    return float(lrs[last] + lrs[last + 1]) / 2


def _critical(config: Config, rates: pd.DataFrame, method: str, radii: tuple[float, ...]) -> Verdict:
    pairs = [(rho, stable_lr(CURVATURE, rho, method), critical_lr(rows_of(rates, method, rho))) for rho in radii]
    holds = all(abs(theory - measured) <= config.grid for _, theory, measured in pairs)
    laws = {
        "SGD": ("SGD succeeds up to 2/l", "theory, as in Fig. 2"),
        "USAM": ("Unnormalised SAM succeeds up to 2/(l(1 + rho·l)) only", "theory, for Fig. 2"),
        "SSAM-U": ("SSAM keeps SGD's limit 2/l at every radius", SOURCE + ", and theory"),
    }
    claim, source = laws[method]
    return Verdict(
        f"{claim} (l = 3.414)",
        source,
        _listed([(rho, theory) for rho, theory, _ in pairs])
        + f"{', each' if len(pairs) > 1 else ''} ± {config.grid:g}",
        _listed([(rho, measured) for rho, _, measured in pairs]),
        holds,
        f"Critical learning rate, half way between two of the grid: ± {config.grid / 2:g}. {terms(config)}",
        figure="unnormalised",
    )


def _listed(pairs: list[tuple[float, float]]) -> str:
    return ", ".join(f"{value:.3f}" + (f" at rho {rho:g}" if rho else "") for rho, value in pairs)


def terms(config: Config) -> str:
    """On what terms success is counted, one sentence."""
    return (
        f"{config.starts} starts a point in the box ± {config.box:g}, {config.steps} steps, success within "
        f"{config.tolerance:g} of a minimum."
    )


def _wider(config: Config, rates: pd.DataFrame) -> list[Verdict]:
    """The paper's message: SSAM can be trained at learning rates where SAM cannot."""
    found = []
    for (sam, ssam), radii, ascent in (
        (UNNORMALISED, config.radii, "unnormalised"), (NORMALISED, config.lengths, "normalised"),
    ):  # fmt: skip
        if not radii:
            continue
        pairs = [(rho, critical_lr(rows_of(rates, sam, rho)), critical_lr(rows_of(rates, ssam, rho))) for rho in radii]
        words = ", ".join(f"{shown_lr(ours)} against {shown_lr(theirs)} at rho {rho:g}" for rho, theirs, ours in pairs)
        # SAM that never succeeds has no limit at all: every one of SSAM's is above it.
        holds = all((ours > theirs + config.grid / 2) or (math.isnan(theirs) and ours > 0) for _, theirs, ours in pairs)
        found.append(
            Verdict(
                f"SSAM succeeds at larger learning rates than SAM ({ascent} ascent)", SOURCE,
                "a larger critical learning rate at every radius", words, holds, terms(config), figure=ascent,
            )
        )  # fmt: skip
    return found


def shown_lr(value: float) -> str:
    """A critical learning rate in words."""
    return "none" if math.isnan(value) else f"{value:.3f}"


def _cycle(config: Config, rates: pd.DataFrame) -> list[Verdict]:
    """SAM's final distance, and half of its last step, against the cycle of the quadratic where that is small."""
    rows = cycles(config, rates)
    near = rows[rows["theory"] + rows["rho"] <= NEAR]
    if near.empty:
        return []
    found = []
    for column, claim, note in (
        (
            "distance", "Normalised SAM ends at the distance eta·l·rho/(2 − eta·l) from the minimum",
            "Median over starts. The quartic's third derivative moves the middle of the cycle away from the minimum by "
            "about rho², which a quadratic does not do: it shows where the cycle is smaller than that.",
        ),
        (
            "amplitude", "Normalised SAM ends on a cycle of amplitude eta·l·rho/(2 − eta·l), wherever its middle lies",
            "Half of the distance between two successive points, median over starts.",
        ),
    ):  # fmt: skip
        ratio = near[column] / near["theory"]
        by_rho = ratio.groupby(near["rho"]).agg(["min", "max"])
        words = ", ".join(f"{low:.2f} to {high:.2f} at rho {rho:g}" for rho, (low, high) in zip(
            by_rho.index, by_rho.to_numpy(), strict=True))  # fmt: skip
        found.append(
            Verdict(
                claim, "theory for quadratics, ours", "measured over predicted within 0.9 to 1.1",
                f"median {ratio.median():.3f}; {words}", bool((abs(ratio - 1) <= 0.1).all()),
                f"{len(near)} pairs of learning rate and radius with rho + prediction at most {NEAR:g}, a bound set "
                f"after the first results. {note}",
                figure=column,
            )
        )  # fmt: skip
    return found


def cycles(config: Config, rates: pd.DataFrame) -> pd.DataFrame:
    """``rho, lr, distance, theory`` of normalised SAM below SGD's limit."""
    below = rates[(rates["method"] == "SAM") & (rates["lr"] < 0.99 * stable_lr(CURVATURE, method="SGD"))]
    # Where the slow mode (l = 0.586) has not settled yet, the distance is not the cycle's.
    slow = 4 - CURVATURE
    settled = below[(1 - below["lr"] * slow).abs() ** config.steps < 0.01 * below["rho"]]
    theory = [cycle_amplitude(CURVATURE, float(lr), float(rho)) for lr, rho in settled[["lr", "rho"]].to_numpy()]
    return settled[["rho", "lr", "distance", "amplitude"]].assign(theory=theory)


def _settles(config: Config, rates: pd.DataFrame) -> list[Verdict]:
    """Normalised SAM never comes within a small tolerance, normalised SSAM does."""
    if not config.lengths:
        return []
    span = (0.1, 0.5)
    best = {}
    for method in NORMALISED:
        rows = rates[(rates["method"] == method) & rates["lr"].between(*span)]
        share = rows["successes"] / rows["starts"]
        best[method] = share.groupby(rows["rho"]).agg(["min", "max"]).to_dict()
    sam, ssam = (best[method] for method in NORMALISED)
    smallest = min(cycle_amplitude(CURVATURE, span[0], rho) for rho in config.lengths)
    words = ", ".join(
        f"rho {rho:g}: SAM at most {100 * sam['max'][rho]:.1f} %, "
        f"SSAM at least {100 * ssam['min'][rho]:.1f} %"
        for rho in config.lengths
    )  # fmt: skip
    decided = smallest > config.tolerance
    holds = max(sam["max"].values()) < 0.01 and min(ssam["min"].values()) > 0.5
    return [
        Verdict(
            "With the normalised ascent SAM never settles within the tolerance, and SSAM mostly does",
            "theory (fenland.theory), ours",
            f"success of SAM below 1 %, of SSAM above 50 %, for learning rates from {span[0]:g} to {span[1]:g}",
            words,
            holds if decided else None,
            f"{terms(config)} Of the starts that SSAM loses there, {_held(rates, span):.0f} % are held at the saddle, "
            "to which ||g|| < rho·m draws both methods; the others are at learning rates too large for their radius."
            + ("" if decided else f" SAM's smallest cycle, {smallest:.2g}, is within the tolerance."),
            figure="normalised",
        )
    ]


def _held(rates: pd.DataFrame, span: tuple[float, float]) -> float:
    """Per cent of SSAM's failures that are caught by the saddle."""
    rows = rates[(rates["method"] == "SSAM") & rates["lr"].between(*span)]
    failures = int((rows["starts"] - rows["successes"]).sum())
    return 100 * float(rows["held"].sum()) / max(failures, 1)
