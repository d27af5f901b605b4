"""A function of two weights: its lines of equal value and its critical points, with their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from fenland.lab.figures.plots import Numbers, draw_contours
from fenland.lab.figures.style import SMALL, Canvas


class Spot(NamedTuple):
    """A point with a name, drawn with a marker in the colour of a label."""

    x: float
    y: float
    words: str
    label: str
    marker: str = "o"


def draw_landscape(
    axes: Axes, canvas: Canvas, x: Numbers, y: Numbers, values: Numbers, levels: Numbers, spots: Sequence[Spot]
) -> None:
    """Lines at ``levels`` of ``values`` (len(y), len(x)), and spots."""
    axes.grid(visible=False)
    draw_contours(axes, canvas, np.asarray(x, float), np.asarray(y, float), values, levels)
    for spot in spots:
        color = canvas.look(spot.label)["color"]
        axes.plot([spot.x], [spot.y], spot.marker, markersize=8, markeredgewidth=1.7, color=color)
        axes.annotate(
            spot.words, (spot.x, spot.y), xytext=(0, 8), textcoords="offset points", ha="center", va="bottom",
            fontsize=SMALL, color=canvas.ink.text,
            bbox={"facecolor": canvas.ink.page, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
