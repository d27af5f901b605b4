"""The quartic of the SSAM paper (Fig. 2): at which learning rates training succeeds, with both ascents."""

from __future__ import annotations

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
from fenland.lab.study import Lab, Measured, Piece, Plot, Source, Study, Tables
from fenland.lab.study.grid import above_zero
from fenland.lab.study.rows import gathered
from fenland.lab.study.words import share
from fenland.theory.quadratic import stable_lr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fenland.lab.figures.style import Canvas
from fenland.lab.studies.quartic_claims import CURVATURE, NORMALISED, UNNORMALISED, claims, cycles, rows_of, terms


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
    return gathered(lab, pieces, "methods and radii")


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
        "Starts are uniform in a box around the origin (field box). A start succeeds if it is nearer to a minimum than "
        "the tolerance after the last step. The paper gives neither box nor tolerance nor steps.",
        "The critical learning rate is half way between the last one at which a start succeeds and the next of the "
        "grid. If the grid is coarse, the gap in which success ends is filled with more learning rates.",
        "The caption does not say which ascent its curves have, so both are run: the unnormalised one (rho in w per "
        "gradient) with USAM and SSAM-U, which is the paper's SSAM, and the normalised one (rho in w) with SAM and "
        "SSAM.",
        "A start that gets further out than 1000 is lost and counts as a failure.",
    ),
)  # fmt: skip
