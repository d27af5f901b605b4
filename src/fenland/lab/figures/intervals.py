"""One row an optimizer: every seed as a ring, the mean as a dot, the 95 % interval as a bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fenland.lab.figures.style import HEIGHT, SMALL, Canvas, blank, head, name_x, title_of
from fenland.lab.store.statistics import interval


def draw_intervals(
    title: str, along: str, canvas: Canvas, values: Mapping[str, Sequence[float]], zero: str = ""
) -> Figure:
    """Draw ``values`` (one list over seeds for each label) on one axis; ``zero`` names a line at zero."""
    figure, axes = blank(canvas, max(HEIGHT, 70 + 34 * len(values)))
    axes.grid(visible=False)
    axes.grid(axis="x", color=canvas.ink.line, linewidth=0.7)
    form = _form(values.values(), "+" if zero else "")
    for place, (label, numbers) in enumerate(values.items()):
        color, found = canvas.look(label)["color"], interval(numbers)
        axes.plot([found.low, found.high], [place, place], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(
            numbers,
            place + 0.2 + _stacked(numbers),
            "o",
            markersize=4.2,
            markerfacecolor="none",
            markeredgecolor=color,
        )
        axes.plot([found.mean], [place], "o", markersize=7, color=color)
        axes.annotate(
            f"{title_of(label)}  {found.mean:{form}}",
            (found.mean, place), xytext=(0, 9), textcoords="offset points", ha="center", va="bottom",
            fontsize=SMALL, color=canvas.ink.text,
            bbox={"facecolor": canvas.ink.page, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
    if zero:
        axes.axvline(0, color=canvas.ink.soft, linewidth=1)
    axes.set_ylim(len(values) - 0.5, -0.75)
    axes.set_yticks([])
    low, high = axes.get_xlim()  # room for the names, which are centred on the means
    axes.set_xlim(low - 0.16 * (high - low), high + 0.16 * (high - low))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    name_x(axes, canvas, along)
    head(axes, canvas, title, ())
    return figure


def _form(values: Iterable[Sequence[float]], sign: str) -> str:
    """Two decimals, or three digits where the largest mean would lose its own at that."""
    largest = max((abs(interval(numbers).mean) for numbers in values if interval(numbers).n), default=1.0)
    return f"{sign}.2f" if largest >= 0.1 or not largest else f"{sign}.3g"


def _stacked(numbers: Sequence[float]) -> np.ndarray:
    """Offsets that put equal seeds below each other, so that they can be counted, within a third of a row."""
    earlier = [sum(other == value for other in numbers[:index]) for index, value in enumerate(numbers)]
    return np.array(earlier, float) * min(0.13, 0.33 / max(1, *earlier, 1))
