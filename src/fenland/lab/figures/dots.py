"""A row a network, in it a dot an optimizer: means with their intervals, for many cases of few seeds."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from fenland.lab.figures.plots import marker_of, scale_axis
from fenland.lab.figures.style import SMALL, Canvas, blank, head, legend_height, name_x
from fenland.lab.store.statistics import Interval


def draw_dots(canvas: Canvas, title: str, along: str, cells: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Draw ``cells``, by row (a network) and label (an optimizer)."""
    names = [label for label in canvas.labels if any(label in row for row in cells.values())]
    step = 14.0
    figure, axes = blank(canvas, 60 + len(cells) * (step * len(names) + 26) + legend_height(names))
    axes.grid(visible=False)
    axes.grid(axis="x", color=canvas.ink.line, linewidth=0.7)
    apart = len(names) + 1.7
    for place, (model, row) in enumerate(cells.items()):
        axes.text(
            0.0, place * apart - 0.95, model, transform=axes.get_yaxis_transform(), ha="left", va="center",
            fontsize=SMALL, color=canvas.ink.text,
        )  # fmt: skip
        for index, name in enumerate(names):
            if name in row:
                found, at = row[name], place * apart + index
                color = canvas.look(name)["color"]
                axes.plot([found.low, found.high], [at, at], color=color, linewidth=4, alpha=0.35)
                axes.plot([found.mean], [at], marker_of(canvas, name), color=color, markersize=5.5)
    axes.set_ylim(len(cells) * apart - 1.2, -1.7)
    axes.set_yticks([])
    scale_axis(axes.xaxis, log=False)
    name_x(axes, canvas, along)
    head(axes, canvas, title, names)
    return figure
