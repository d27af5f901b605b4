"""The figures of the study `quartic`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel, draw_contours, draw_panel, draw_panels
from fenland.lab.figures.style import SMALL, blank, head
from fenland.lab.studies.quartic import CURVATURE, UNNORMALISED, Config, critical_lr, cycles, rows_of, shown_lr, terms
from fenland.theory.quadratic import stable_lr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fenland.lab.figures.style import Canvas


def contours() -> Drawn:
    """The function, its minima and its saddle."""

    def draw(canvas: Canvas) -> Figure:
        figure, axes = blank(canvas, 250)
        side = np.linspace(-2, 2, 161)
        x, y = np.meshgrid(side, side)
        levels = [-0.24, -0.2, -0.12, 0.0, 0.25, 0.75, 1.5, 3.0, 5.0]
        draw_panel(axes, canvas, Panel([], "x₁"))
        axes.grid(visible=False)
        draw_contours(axes, canvas, side, side, x**4 / 4 - x * y + y**2 / 2, levels)
        axes.plot([1, -1], [1, -1], "+", markersize=11, markeredgewidth=1.8, color=canvas.look("minimum")["color"])
        axes.plot([0], [0], "x", markersize=7, markeredgewidth=1.6, color=canvas.look("saddle")["color"])
        for words, point in (("minimum (1, 1)", (1, 1)), ("minimum (−1, −1)", (-1, -1)), ("saddle", (0, 0))):
            axes.annotate(
                words, point, xytext=(0, 8), textcoords="offset points", ha="center", va="bottom", fontsize=SMALL,
                color=canvas.ink.text, bbox={"facecolor": canvas.ink.page, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
        axes.set_ylabel("x₂", fontsize=SMALL, color=canvas.ink.soft, rotation=0)
        head(axes, canvas, "x₁⁴/4 − x₁x₂ + x₂²/2", ())
        return figure

    return Drawn(
        "contours",
        "x₁⁴/4 − x₁x₂ + x₂²/2",
        "Lines of equal value from −0.24 to 5. Both minima have the value −1/4 and the largest curvature 3.414.",
        "Contour plot with minima at (1, 1) and (−1, −1) and a saddle at the origin.",
        draw,
        ("minimum", "saddle"),
    )


def success(
    config: Config, rates: pd.DataFrame, methods: tuple[str, ...], radii: tuple[float, ...], name: str, what: str
) -> Drawn:
    """Success against learning rate, one panel a radius, with the limits of theory for the unnormalised ascent."""
    labels = ("SGD", *methods)
    panels = []
    for rho in radii:
        lines = [_rate_line(rows_of(rates, "SGD", 0.0), "SGD")] + [
            _rate_line(rows_of(rates, m, rho), m) for m in methods
        ]
        marks = [Mark(stable_lr(CURVATURE, rho, m), label=m) for m in labels] if methods == UNNORMALISED else []
        panels.append(Panel(lines, "learning rate", f"rho = {rho:g}", marks=marks[:2], y_limits=(-4, 104)))
    title = f"{what}, % of starts"
    limits = {(m, rho): shown_lr(critical_lr(rows_of(rates, m, rho))) for m in methods for rho in radii}
    ends = [f"{m} at rho {rho:g} until {limit}" for (m, rho), limit in limits.items()]
    sgd = shown_lr(critical_lr(rows_of(rates, "SGD", 0.0)))
    theory = " Dotted: the limits of theory for SGD (and SSAM-U) and for USAM." if methods == UNNORMALISED else ""
    return Drawn(
        name,
        title,
        f"{terms(config)} Bands: 95 % (Wilson).{theory}",
        f"{title}, by learning rate. SGD succeeds until {sgd}; {'; '.join(ends)}.",
        lambda canvas: draw_panels(canvas, title, panels, height=135),
        METHODS,
    )


def _rate_line(rows: pd.DataFrame, label: str) -> Line:
    n, share = rows["starts"].to_numpy(float), (rows["successes"] / rows["starts"]).to_numpy(float)
    z = 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Line(label, rows["lr"], 100 * share, 100 * (middle - half), 100 * (middle + half))


def distance(config: Config, rates: pd.DataFrame, column: str, title: str) -> Drawn:
    """SAM's final distance, or the amplitude of its cycle, beside the quadratic's."""
    rows = cycles(config, rates)
    labels = tuple(f"rho {rho:g}" for rho in config.lengths)
    lines = []
    for rho, label in zip(config.lengths, labels, strict=True):
        own = rows[rows["rho"] == rho]
        lines += [Line(label, own["lr"], own["theory"], kind="theory")]
        lines += [Line(label, own["lr"], own[column], kind="dots")]
    ratio = (rows[column] / rows["theory"]).astype(float)
    said = f"Measured over predicted from {ratio.min():.2f} to {ratio.max():.2f}." if len(ratio) else ""
    half = "half of the last step, " if column == "amplitude" else ""
    return Drawn(
        column,
        title,
        f"Points: {half}median over starts. Thin lines: eta·l·rho/(2 − eta·l), the cycle of a quadratic.",
        f"{title} by learning rate, one colour a radius. {said}",
        lambda canvas: draw_panels(canvas, title, [Panel(lines, "learning rate", log_y=True)]),
        labels,
    )
