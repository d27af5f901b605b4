"""The quartic of the SSAM paper (Fig. 2): at which learning rates training succeeds, with both ascents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.landscape import Spot, draw_landscape
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel, draw_panel
from fenland.lab.figures.style import SMALL, blank, head
from fenland.lab.replicas.basins import success
from fenland.lab.study import Claim, Finding, Lab, Measured, Piece, Plot, Source, Study, Tables
from fenland.lab.study.grid import above_zero
from fenland.lab.study.quantities import statement
from fenland.lab.study.theory import near
from fenland.lab.study.words import share
from fenland.theory.quadratic import cycle_amplitude, stable_lr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fenland.lab.figures.style import Canvas

CURVATURE = 2 + math.sqrt(2)  # the largest Hessian eigenvalue at both minima
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
PAPER = Source("Tan et al. 2025 (SSAM), Fig. 2")
# A quadratic's cycle is compared where cycle and ascent point stay this near: further out the quartic is no quadratic
# (at rho = 0.5 the amplitude is 0.64 of the formula).
NEAR = 0.15
SPAN = (0.1, 0.5)  # learning rates at which the normalised ascent is judged
LAWS = {
    "SGD": ("SGD succeeds up to 2/l", Source("theory, as in Fig. 2", ours=True)),
    "USAM": ("Unnormalised SAM succeeds up to 2/(l(1 + rho·l)) only", Source("theory, for Fig. 2", ours=True)),
    "SSAM-U": ("SSAM keeps SGD's limit 2/l at every radius", Source(f"{PAPER}, and theory")),
}


@dataclass(frozen=True)
class Config:
    """What is run."""

    radii: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)  # rho of the unnormalised ascent (w per gradient)
    lengths: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5)  # rho of the normalised ascent (w)
    grid: float = 0.01  # step of the learning rates
    coarse: float = 0.01  # distance of the learning rates where success does not end; a multiple of ``grid``
    highest: float = 0.68  # learning rate
    starts: int = 10_000  # drawn uniformly from the box, for each learning rate and radius the same
    box: float = 2.0  # half its side, around the origin
    steps: int = 2000  # of every trajectory
    tolerance: float = 1e-3  # distance to a minimum that counts as success, after the last step
    seed: int = 0  # of the starts

    def __post_init__(self) -> None:
        above_zero(self, "grid", "coarse", "highest", "box", "tolerance", "starts", "steps")
        ratio = self.coarse / self.grid
        if abs(ratio - round(ratio)) > 1e-9:
            raise BadInput("coarse", self.coarse, f"give a whole multiple of grid = {self.grid}")


def measure(config: Config, lab: Lab) -> Tables:
    """One piece a method and radius."""
    plans = [("SGD", 0.0), *((m, rho) for m in UNNORMALISED for rho in config.radii)]
    plans += [(m, rho) for m in NORMALISED for rho in config.lengths]
    names = ("grid", "coarse", "highest", "starts", "box", "steps", "tolerance", "seed")
    key = {name: getattr(config, name) for name in names}
    pieces = [Piece("rates", {**key, "method": m, "rho": rho}, partial(rates, config, m, rho)) for m, rho in plans]
    return {"rates": pd.concat(lab.keep_all(pieces, "methods and radii"), ignore_index=True)}


def rates(config: Config, method: str, rho: float) -> pd.DataFrame:
    """Success by learning rate: the coarse grid first, then the gap where success ends."""
    given = {name: getattr(config, name) for name in ("starts", "box", "steps", "tolerance", "seed")}
    per, last = round(config.coarse / config.grid), round(config.highest / config.grid)
    table = success(method, rho, [k * config.grid for k in range(per, last + 1, per)], **given)
    alive = table.loc[table["successes"] > 0, "lr"]
    if per > 1 and len(alive):
        begin = round(float(alive.max()) / config.grid)
        inner = [k * config.grid for k in range(begin + 1, min(begin + per, last + 1))]
        if inner:
            table = pd.concat([table, success(method, rho, inner, **given)]).sort_values("lr", ignore_index=True)
    return table


def rows_of(measured: Measured, method: str, rho: float) -> pd.DataFrame:
    """The rows of a method and radius, by learning rate."""
    table = measured["rates"]
    return table[(table["method"] == method) & (table["rho"] == rho)].sort_values("lr")


def critical_lr(rows: pd.DataFrame) -> float:
    """The middle between the last learning rate with a success and the next; NaN where success never ends or begins."""
    lrs, some = rows["lr"].to_numpy(float), rows["successes"].to_numpy() > 0
    if not some.any() or some[-1]:
        return math.nan
    last = int(np.flatnonzero(some)[-1])
    return float(lrs[last] + lrs[last + 1]) / 2


def limits(measured: Measured, method: str, radii: tuple[float, ...]) -> dict[float, float]:
    """The critical learning rate of each radius."""
    return {rho: critical_lr(rows_of(measured, method, rho)) for rho in radii}


def terms(measured: Measured) -> str:
    """On what terms success is counted."""
    c = measured.config
    return (
        f"{c.starts} starts a point in the box ± {c.box:g}, {c.steps} steps, success within {c.tolerance:g} of a "
        "minimum."
    )


def claims(measured: Measured) -> Iterator[Claim]:
    """Critical learning rates against theory, and what the normalised ascent does instead."""
    config = measured.config
    for method, radii in (("SGD", (0.0,)), *((m, config.radii) for m in UNNORMALISED)):
        sentence, source = LAWS[method]
        law = {rho: stable_lr(CURVATURE, rho, method) for rho in radii}
        if radii:
            yield Claim(
                f"{sentence} (l = 3.414)", source, near(
                    law, limits(measured, method, radii), config.grid, f"{', each' * (len(law) > 1)} ± {config.grid:g}"
                ),
                "unnormalised", notes=(
                    f"Critical learning rate, half way between two of the grid: ± {config.grid / 2:g}.", terms,
                ),
            )  # fmt: skip
    for pair, radii, ascent in (
        (UNNORMALISED, config.radii, "unnormalised"),
        (NORMALISED, config.lengths, "normalised"),
    ):
        if radii:
            sentence = f"SSAM succeeds at larger learning rates than SAM ({ascent} ascent)"
            yield Claim(sentence, PAPER, _wider(pair, radii), ascent, notes=(terms,))
    near_ones = cycles(measured)
    near_ones = near_ones[near_ones["theory"] + near_ones["rho"] <= NEAR]
    if len(near_ones):
        yield from _of_cycles(near_ones)
    if config.lengths:
        yield Claim(
            "With the normalised ascent SAM never settles within the tolerance, and SSAM mostly does",
            Source("theory (fenland.theory), ours", ours=True), _settles, "normalised", notes=(terms,),
        )  # fmt: skip


@statement
def _wider(measured: Measured, pair: tuple[str, str], radii: tuple[float, ...]) -> Finding:
    """The paper's message: SSAM can be trained at learning rates where SAM cannot."""
    sam, ssam = (limits(measured, method, radii) for method in pair)
    words = ", ".join(f"{_shown(ssam[rho])} against {_shown(sam[rho])} at rho {rho:g}" for rho in radii)
    # SAM that never succeeds has no limit at all: every one of SSAM's is above it.
    least = measured.config.grid / 2
    holds = all(ssam[rho] > sam[rho] + least or (math.isnan(sam[rho]) and ssam[rho] > 0) for rho in radii)
    return Finding("a larger critical learning rate at every radius", words, holds)


def _shown(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def cycles(measured: Measured) -> pd.DataFrame:
    """``rho, lr, distance, amplitude, theory`` of normalised SAM below SGD's limit."""
    table, steps = measured["rates"], measured.config.steps
    below = table[(table["method"] == "SAM") & (table["lr"] < 0.99 * stable_lr(CURVATURE, method="SGD"))]
    # Where the slow mode (l = 0.586) has not settled yet, the distance is not the cycle's.
    settled = below[(1 - below["lr"] * (4 - CURVATURE)).abs() ** steps < 0.01 * below["rho"]]
    theory = [cycle_amplitude(CURVATURE, float(lr), float(rho)) for lr, rho in settled[["lr", "rho"]].to_numpy()]
    found: pd.DataFrame = settled[["rho", "lr", "distance", "amplitude"]].assign(theory=theory)
    return found


def _of_cycles(rows: pd.DataFrame) -> Iterator[Claim]:
    """SAM's final distance, and half of its last step, against the cycle of the quadratic where that is small."""
    said = {
        "distance": (
            "Normalised SAM ends at the distance eta·l·rho/(2 − eta·l) from the minimum",
            "Median over starts. The quartic's third derivative moves the middle of the cycle away from the minimum by "
            "about rho², which a quadratic does not do: it shows where the cycle is smaller than that.",
        ),
        "amplitude": (
            "Normalised SAM ends on a cycle of amplitude eta·l·rho/(2 − eta·l), wherever its middle lies",
            "Half of the distance between two successive points, median over starts.",
        ),
    }
    pairs = (
        f"{len(rows)} pairs of learning rate and radius with rho + prediction at most {NEAR:g}, a bound set after the "
        "first results."
    )
    for column, (sentence, note) in said.items():
        ratio = rows[column] / rows["theory"]
        by_rho = ratio.groupby(rows["rho"]).agg(["min", "max"]).itertuples()
        words = ", ".join(f"{low:.2f} to {high:.2f} at rho {rho:g}" for rho, low, high in by_rho)
        found = Finding(
            "measured over predicted within 0.9 to 1.1", f"median {ratio.median():.3f}; {words}",
            bool((abs(ratio - 1) <= 0.1).all()),
        )  # fmt: skip
        ours = Source("theory for quadratics, ours", ours=True)
        yield Claim(sentence, ours, lambda _, found=found: found, column, notes=(pairs, note))  # type: ignore[misc]


def _settles(measured: Measured) -> Finding:
    """Normalised SAM never comes within a small tolerance, normalised SSAM does."""
    table, config, best = measured["rates"], measured.config, {}
    for method in NORMALISED:
        rows = table[(table["method"] == method) & table["lr"].between(*SPAN)]
        best[method] = (rows["successes"] / rows["starts"]).groupby(rows["rho"]).agg(["min", "max"])
    sam, ssam = best["SAM"]["max"], best["SSAM"]["min"]
    words = ", ".join(
        f"rho {rho:g}: SAM at most {100 * sam[rho]:.1f} %, SSAM at least {100 * ssam[rho]:.1f} %"
        for rho in config.lengths
    )
    smallest = min(cycle_amplitude(CURVATURE, SPAN[0], rho) for rho in config.lengths)
    rows = table[(table["method"] == "SSAM") & table["lr"].between(*SPAN)]
    held = 100 * float(rows["held"].sum()) / max(int((rows["starts"] - rows["successes"]).sum()), 1)
    return Finding(
        f"success of SAM below 1 %, of SSAM above 50 %, for learning rates from {SPAN[0]:g} to {SPAN[1]:g}", words,
        bool(sam.max() < 0.01 and ssam.min() > 0.5) if smallest > config.tolerance else None,
        f"Of the starts that SSAM loses there, {held:.0f} % are held at the saddle, to which ||g|| < rho·m draws both "
        "methods; the others are at learning rates too large for their radius.",
        f"Not decided: SAM's smallest cycle, {smallest:.2g}, is within the tolerance.",
    )  # fmt: skip


def contours(measured: Measured) -> Drawn:
    """The function, its minima and its saddle."""
    title = "x₁⁴/4 − x₁x₂ + x₂²/2"
    spots = [Spot(1, 1, "minimum (1, 1)", "minimum", "+"), Spot(-1, -1, "minimum (−1, −1)", "minimum", "+"),
             Spot(0, 0, "saddle", "saddle", "x")]  # fmt: skip

    def draw(canvas: Canvas) -> Figure:
        figure, axes = blank(canvas, 250)
        side = np.linspace(-2, 2, 161)
        x, y = np.meshgrid(side, side)
        levels = [-0.24, -0.2, -0.12, 0.0, 0.25, 0.75, 1.5, 3.0, 5.0]
        draw_panel(axes, canvas, Panel([], "x₁"))
        draw_landscape(axes, canvas, side, side, x**4 / 4 - x * y + y**2 / 2, levels, spots)
        axes.set_ylabel("x₂", fontsize=SMALL, color=canvas.ink.soft, rotation=0)
        head(axes, canvas, title, ())
        return figure

    return Drawn(
        "contours", title,
        "Lines of equal value from −0.24 to 5. Both minima have the value −1/4 and the largest curvature 3.414.",
        "Contour plot with minima at (1, 1) and (−1, −1) and a saddle at the origin.", draw, ("minimum", "saddle"),
    )  # fmt: skip


def by_lr(methods: tuple[str, ...], name: str, field: str) -> Plot:
    """Success against learning rate, one panel a radius, with the limits of theory for the unnormalised ascent."""

    def line(measured: Measured, method: str, rho: float) -> Line:
        rows = rows_of(measured, method, rho)
        found = [share(*map(int, pair)) for pair in rows[["successes", "starts"]].to_numpy()]
        mean, low, high = ([100 * each[k] for each in found] for k in range(3))
        return Line(method, rows["lr"], mean, low, high)

    def panels(measured: Measured) -> list[Panel]:
        return [
            Panel(
                [line(measured, "SGD", 0.0), *(line(measured, method, rho) for method in methods)], "learning rate",
                f"rho = {rho:g}", y_limits=(-4, 104),
                marks=[Mark(stable_lr(CURVATURE, rho, m), label=m) for m in ("SGD", "USAM") if methods == UNNORMALISED],
            )
            for rho in getattr(measured.config, field)
        ]  # fmt: skip

    theory = " Dotted: the limits of theory for SGD (and SSAM-U) and for USAM." if methods == UNNORMALISED else ""
    title = f"Success, {name} ascent, % of starts"
    return Plot(name, title, panels, lambda m: f"{terms(m)} Bands: 95 % (Wilson).{theory}", METHODS, height=135)


def of_cycle(column: str, title: str, half: str = "") -> Plot:
    """SAM's final distance, or the amplitude of its cycle, beside the quadratic's."""

    def panels(measured: Measured) -> list[Panel]:
        lines = []
        for rho, own in cycles(measured).groupby("rho"):
            lines += [Line(f"rho {rho:g}", own["lr"], own["theory"], kind="theory")]
            lines += [Line(f"rho {rho:g}", own["lr"], own[column], kind="dots")]
        return [Panel(lines, "learning rate", log_y=True)]

    caption = f"Points: {half}median over starts. Thin lines: eta·l·rho/(2 − eta·l), the cycle of a quadratic."
    return Plot(column, title, panels, caption)


STUDY = Study(
    name="quartic",
    title="Learning rates at which a quartic can be trained",
    source=Source("Tan et al. 2025, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy "
                  "(arXiv 2401.07250), Fig. 2"),
    question="Up to which learning rate do SGD, SAM and SSAM reach a minimum of x₁⁴/4 − x₁x₂ + x₂²/2?",
    config=Config,
    quick={"coarse": 0.04, "starts": 1000, "steps": 400},
    runs=measure,
    claims=claims,
    figures=[
        contours,
        of_cycle("amplitude", "Amplitude of normalised SAM's cycle", "half of the last step, "),
        by_lr(UNNORMALISED, "unnormalised", "radii"),
        by_lr(NORMALISED, "normalised", "lengths"),
        of_cycle("distance", "Normalised SAM's distance from the minimum"),
    ],
    choices=(
        "Starts are uniform in a box around the origin (field box); success is a distance below the tolerance after "
        "the last step. The paper gives neither box nor tolerance nor steps.",
        "The critical learning rate lies in the middle between the last one at which a start succeeds and the next of "
        "the grid. Where the grid is coarse at first, the gap in which success ends is filled.",
        "Unnormalised ascent (rho in w per gradient): USAM and SSAM-U, the paper's SSAM. Normalised ascent (rho in w): "
        "SAM and SSAM. The caption does not say which one its curves have; both are run.",
        "A start that is further out than 1000 is lost and counts as a failure.",
    ),
)  # fmt: skip
