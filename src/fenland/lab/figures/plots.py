"""Figures of studies: lines with bands, dots beside theory, reference lines, heat maps, panels above each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fenland.lab.figures.style import (
    HEIGHT,
    SMALL,
    Canvas,
    blanks,
    head,
    head_all,
    headroom_of,
    legend_height,
    name_x,
)

Numbers = Any  # what numpy takes for a row of numbers: a list, an array, a column of a table
# Perceptually even, and told apart by every kind of colour vision (Nuñez, Anderton, Renslow 2018).
COLOURS = "cividis"
# The order of colours wherever methods are compared: one colour and one line style each in all studies.
METHODS = ("SGD", "USAM", "SSAM-U", "SAM", "SSAM")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """One row of points."""

    label: str  # whose: it gives colour and line style, and stands in the legend
    x: Numbers  # along the axis
    y: Numbers  # as many
    low: Numbers | None = None  # lower edge of a band around y, or None
    high: Numbers | None = None  # its upper edge
    # "line"; "dots", which are measured points beside a "theory", a thin line of the same colour; "joined" dots
    kind: Literal["line", "dots", "joined", "theory"] = "line"


@dataclass(frozen=True)
class Mark:
    """A straight line across a panel, with a word at its end."""

    at: float  # where
    text: str = ""  # beside it; empty for none
    across: Literal["x", "y"] = "x"  # the axis that it is a value of: "x" stands upright, "y" lies
    label: str = ""  # whose colour it takes; empty for the soft ink


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    lines: Sequence[Line]  # what is drawn
    along: str  # name of the horizontal axis, with its unit
    title: str = ""  # above it; a figure of one panel has its own title already
    log_x: bool = False  # logarithmic axis; points that are not positive are left out
    log_y: bool = False  # likewise
    marks: Sequence[Mark] = ()  # reference lines
    x_limits: tuple[float, float] | None = None  # of the axis, None for those of the data
    y_limits: tuple[float, float] | None = None  # likewise
    whole: bool = False  # whether only whole numbers have ticks along x, as for steps


def draw_panels(canvas: Canvas, title: str, panels: Sequence[Panel], columns: int = 1, height: float = 0.0) -> Figure:
    """Panels row by row, with one legend above the first.

    Args:
        canvas: with which colours, for which labels.
        title: of the whole; it is drawn in files only.
        panels: their contents.
        columns: 1; 2 for panels that bear to be half as wide as a phone.
        height: of one row in points; 0 for the usual one.
    """
    shown = [label for label in canvas.labels if any(line.label == label for p in panels for line in p.lines)]
    if len(panels) == 1:
        figure, (only,) = blanks(canvas, (height or HEIGHT) + legend_height(shown))
        draw_panel(only, canvas, panels[0])
        head(only, canvas, title, shown)
        return figure
    rows, headroom = math.ceil(len(panels) / columns), headroom_of(canvas, shown)
    figure, axes = blanks(canvas, rows * (height or 150) + headroom, rows, columns, headroom)
    for place, panel in zip(axes, panels, strict=False):
        draw_panel(place, canvas, panel, ticks=5 if columns == 1 else 3)
        place.set_title(panel.title, loc="left", fontsize=SMALL, color=canvas.ink.text, pad=4)
    for empty in axes[len(panels) :]:
        empty.set_visible(False)
    head_all(figure, canvas, title, shown)
    return figure


def draw_panel(axes: Axes, canvas: Canvas, panel: Panel, ticks: int = 5) -> None:
    """Lines, reference lines and scales of one panel, with about so many ticks along x."""
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    for line in panel.lines:
        _draw(axes, canvas, line, panel)
    if panel.x_limits is not None:
        axes.set_xlim(*panel.x_limits)
    if panel.y_limits is not None:
        axes.set_ylim(*panel.y_limits)
    for mark in panel.marks:
        _mark(axes, canvas, mark)
    scale_axis(axes.xaxis, panel.log_x, ticks)
    if panel.whole:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True))
    scale_axis(axes.yaxis, panel.log_y)
    name_x(axes, canvas, panel.along)


def _draw(axes: Axes, canvas: Canvas, line: Line, panel: Panel) -> None:
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    if panel.log_y:
        y = np.where(y > 0, y, np.nan)
    look = canvas.look(line.label)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, float), np.asarray(line.high, float)
        low = np.where(low > 0, low, np.nanmin(y) / 10) if panel.log_y else low
        axes.fill_between(x, low, high, color=look["color"], alpha=0.14, linewidth=0)
    if line.kind == "line":
        axes.plot(x, y, linewidth=1.8, **look)
    elif line.kind == "theory":
        axes.plot(x, y, linewidth=0.9, color=look["color"])
    else:
        joined = {"linewidth": 1.1, "linestyle": look["linestyle"]} if line.kind == "joined" else {"linestyle": "none"}
        axes.plot(x, y, color=look["color"], marker=marker_of(canvas, line.label), markersize=4.6, **joined)


def marker_of(canvas: Canvas, label: str) -> str:
    """A shape for a label's points, so that they are told apart without their colour."""
    return "os^Dv<>"[canvas.labels.index(label) % 7]


def _mark(axes: Axes, canvas: Canvas, mark: Mark) -> None:
    color = canvas.look(mark.label)["color"] if mark.label else canvas.ink.soft
    style: Any = {"color": color, "linewidth": 0.9, "linestyle": (0, (2, 2)), "zorder": 1.5}
    words: Any = {"fontsize": SMALL, "color": canvas.ink.soft, "bbox": _patch(canvas), "zorder": 4}
    if mark.across == "x":
        axes.axvline(mark.at, **style)
        if mark.text:
            axes.annotate(
                mark.text, (mark.at, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
                textcoords="offset points", ha="left", va="top", **words,
            )  # fmt: skip
        return
    axes.axhline(mark.at, **style)
    if mark.text:
        axes.annotate(
            mark.text, (1.0, mark.at), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
            ha="right", va="bottom", **words,
        )  # fmt: skip


def _patch(canvas: Canvas) -> dict[str, Any]:
    """The page's colour behind words, so that lines do not run through them."""
    return {"facecolor": canvas.ink.page, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}


def scale_axis(axis: Axis, log: bool, ticks: int = 5) -> None:
    """Few ticks that stand for themselves: no common power or offset beside the axis."""
    if not log:
        axis.set_major_locator(MaxNLocator(nbins=ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
        return
    low, high = sorted(axis.get_view_interval())
    steps: Any
    if low > 0 and math.log10(high) - math.log10(low) >= 2:
        steps = FixedLocator(_powers(low, high, ticks))
    elif high / low >= 2:
        steps = LogLocator(subs=(1.0, 2.0, 5.0), numticks=ticks + 3)
    else:
        steps = FixedLocator(_round_ticks(low, high))
    axis.set_major_locator(steps)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def _powers(low: float, high: float, ticks: int) -> list[float]:
    """Powers of ten in between, at most about so many, their exponents evenly spaced."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    stride = -(-(last - first + 1) // (ticks + 1))
    return [10.0**exponent for exponent in range(first, last + 1) if exponent % stride == 0]


def _round_ticks(low: float, high: float) -> list[float]:
    return [float(tick) for tick in MaxNLocator(nbins=4).tick_values(low, high) if low <= tick <= high]


def plain_number(value: float) -> str:
    """A number as it is written: 0.05, 200, 10⁻⁷, 3·10⁸; a true minus sign."""
    if value == 0 or 1e-4 < abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    mantissa, _, power = f"{value:.2e}".partition("e")
    exponent = str(int(power)).translate(_RAISED)
    short = f"{float(mantissa):.3g}".replace("-", "−")
    return f"10{exponent}" if short == "1" else f"−10{exponent}" if short == "−1" else f"{short}·10{exponent}"


def draw_heat(
    canvas: Canvas,
    title: str,
    x: Numbers,
    y: Numbers,
    values: Numbers,
    *,
    along: str,
    up: str,
    limits: tuple[float, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    lines: Iterable[Line] = (),
    height: float = HEIGHT + 45,
) -> Figure:
    """A map of ``values`` (len(y), len(x)) over cells around x and y, with its scale beside it, and lines over it."""
    drawn = list(lines)
    shown = [label for label in canvas.labels if any(line.label == label for line in drawn)]
    figure, (axes,) = blanks(canvas, height + legend_height(shown))
    axes.grid(visible=False)
    low, high = limits or (None, None)
    cells = axes.pcolormesh(
        edges(x, log_x), edges(y, log_y), np.asarray(values, float), cmap=COLOURS, vmin=low, vmax=high, rasterized=True
    )
    panel = Panel(drawn, along, log_x=log_x, log_y=log_y)
    draw_panel(axes, canvas, panel)
    axes.set_xlim(*edges(x, log_x)[[0, -1]])
    axes.set_ylim(*edges(y, log_y)[[0, -1]])
    axes.set_ylabel(up, fontsize=SMALL, color=canvas.ink.soft)
    bar = figure.colorbar(cells, ax=axes, pad=0.02, aspect=28)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=canvas.ink.soft, labelsize=SMALL)
    scale_axis(bar.ax.yaxis, log=False)
    head(axes, canvas, title, shown)
    return figure


def edges(centres: Numbers, log: bool = False) -> np.ndarray:
    """The borders of the cells around these centres, one more than they are."""
    c = np.asarray(centres, float)
    c = np.log(c) if log else c
    if len(c) == 1:
        inner = np.array([c[0] - 0.5, c[0] + 0.5])
    else:
        middle = (c[1:] + c[:-1]) / 2
        inner = np.concatenate([[2 * c[0] - middle[0]], middle, [2 * c[-1] - middle[-1]]])
    return np.exp(inner) if log else inner


def draw_contours(axes: Axes, canvas: Canvas, x: Numbers, y: Numbers, values: Numbers, levels: Numbers) -> None:
    """Lines of equal value (len(y), len(x)), in the soft ink, thin."""
    axes.contour(
        np.asarray(x, float), np.asarray(y, float), np.asarray(values, float), levels=np.asarray(levels, float),
        colors=[canvas.ink.soft], linewidths=0.7, linestyles="solid", negative_linestyles="solid",
    )  # fmt: skip
