"""Functions of two weights as pictures: the flow with some paths, and where each start of a box ends."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.style import SMALL, Canvas, blanks
from fenland.lab.replicas.capture import ENDS, Stage
from fenland.lab.study.words import in_percent

SHOWN = ("SGD", "USAM", "SSAM-U", "SAM")  # a panel each
NAMES = {"SGD": "GD", "USAM": "SAM, unnormalised", "SSAM-U": "SSAM, unnormalised", "SAM": "SAM, normalised",
         "SSAM": "SSAM, normalised"}  # fmt: skip
PANEL = 175.0  # height in points


def _panel_title(method: str, rho: float) -> str:
    return NAMES[method] if method == "SGD" else f"{NAMES[method]}\nρ = {rho:.3g}"


def _frame(axes: Axes, canvas: Canvas, stage: Stage, title: str) -> None:
    x0, x1, y0, y1 = stage.box
    axes.set_xlim(x0, x1)
    axes.set_ylim(y0, y1)
    axes.grid(visible=False)
    axes.set_title(title, fontsize=SMALL, color=canvas.ink.text, loc="left", pad=3)
    axes.locator_params(nbins=4)


def _points(axes: Axes, canvas: Canvas, stage: Stage) -> None:
    for points, marker in ((stage.minima, "o"), (stage.saddles, "X")):
        axes.plot(
            [p.x for p in points], [p.y for p in points], marker, color=canvas.ink.text, markersize=5.5,
            markeredgecolor=canvas.ink.page, markeredgewidth=0.7, zorder=6,
        )  # fmt: skip


def portrait(name: str, stage: Stage, fields: pd.DataFrame, paths: pd.DataFrame) -> Drawn:
    """The direction of the flow, and discrete steps from some starts."""

    def paint(canvas: Canvas) -> Figure:
        figure, places = blanks(canvas, 2 * PANEL, 2, 2)
        for axes, method in zip(places, SHOWN, strict=True):
            arrows, lines = (t[t["method"] == method] for t in (fields, paths))
            x, y = np.sort(arrows["x"].unique()), np.sort(arrows["y"].unique())
            u, v = (arrows[c].to_numpy(float).reshape(len(y), len(x)) for c in ("u", "v"))
            axes.quiver(x, y, u, v, color=canvas.ink.line, angles="xy", pivot="mid", scale=20, width=0.006, zorder=1)
            for _, line in lines.groupby("start"):
                axes.plot(line["x"], line["y"], linewidth=1.2, color=canvas.look("a path")["color"], zorder=3)
                axes.plot(
                    line["x"].iloc[-1:], line["y"].iloc[-1:], ".", color=canvas.look("its end")["color"], zorder=5
                )
            _frame(axes, canvas, stage, _panel_title(method, float(arrows["rho"].iloc[0])))
            _points(axes, canvas, stage)
        if canvas.titled:
            figure.suptitle(f"Phase portraits: {stage.name}", fontsize=SMALL + 1.5, color=canvas.ink.text)
        return figure

    return Drawn(
        f"portrait-{name}", f"Phase portraits: {stage.name}",
        "Arrows: direction of −d. Lines: discrete steps from 16 starts, dots their ends after a quarter of the time of "
        "the basins. Circles are minima, crosses saddles.",
        f"Flow of {', '.join(NAMES[m] for m in SHOWN)} over the box {stage.box}.",
        paint, ("a path", "its end"), True,
    )  # fmt: skip


def _alpha(end: str) -> float:
    """Minima are the usual end, and pale."""
    return 0.25 if end == "minimum" else 0.9


def basins(name: str, stage: Stage, ends: pd.DataFrame) -> Drawn:
    """Each start of a box in the colour of where its steps end."""
    largest = {m: float(ends[ends["method"] == m]["rho"].max()) for m in SHOWN}
    rows = {m: ends[(ends["method"] == m) & (ends["rho"] == largest[m])] for m in SHOWN}
    seen = [e for e in ENDS if any((t["end"] == ENDS.index(e)).any() for t in rows.values())]

    def paint(canvas: Canvas) -> Figure:
        figure, places = blanks(canvas, 2 * PANEL + 30, 2, 2)
        for axes, method in zip(places, SHOWN, strict=True):
            part = rows[method]
            side = 118.0 / len(part["x"].unique())  # points of a cell: the panel is about so wide
            for end in seen:
                here = part[part["end"] == ENDS.index(end)]
                axes.plot(
                    here["x"], here["y"], linestyle="none", marker="s", markersize=side, markeredgewidth=0,
                    color=canvas.look(end)["color"], alpha=_alpha(end),
                )  # fmt: skip
            _frame(axes, canvas, stage, _panel_title(method, largest[method]))
            _points(axes, canvas, stage)
        handles = [
            places[0].plot([], [], "s", color=canvas.look(e)["color"], alpha=0.25 if e == "minimum" else 0.9, label=e)[
                0
            ]
            for e in seen
        ]
        legend = figure.legend(
            handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=SMALL, handletextpad=0.2
        )
        for text in legend.get_texts():
            text.set_color(canvas.ink.text)
        if canvas.titled:
            figure.suptitle(f"Where starts end: {stage.name}", fontsize=SMALL + 1.5, color=canvas.ink.text)
        return figure

    shares = "; ".join(
        f"{NAMES[m]} at rho {largest[m]:.3g}: "
        + ", ".join(f"{in_percent((t['end'] == ENDS.index(e)).mean(), 0)}% {e}" for e in seen)
        for m, t in rows.items()
    )
    return Drawn(
        f"basins-{name}", f"Where starts end: {stage.name}",
        "Each square is a start, coloured by the critical point at which its discrete steps end, at each method's "
        "largest radius. Elsewhere: lost, cycling, or not yet arrived. Circles are minima, crosses saddles.",
        shares, paint, tuple(seen), True,
    )  # fmt: skip
