"""Mean curves with 95 % bands over seeds; runs that diverged are thin lines that end in a cross."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from fenland.lab.figures.measured import Curve, Measured
from fenland.lab.figures.style import HEIGHT, Canvas, blank, head, legend_height, name_x


def draw_curve(found: Measured, canvas: Canvas) -> Figure:
    """Draw means with their bands, and each run that broke off as a thin line."""
    curve, means = found.curve, found.means
    shown = [label for label in canvas.labels if label in set(means["label"]) or label in found.broken]
    figure, axes = blank(canvas, HEIGHT + legend_height(shown))
    for label in shown:
        _draw_label(axes, canvas, label, means[means["label"] == label], curve)
        for run in found.broken.get(label, ()):
            _draw_broken(axes, canvas, label, run, curve)
    if found.log:
        _scale_log(axes, means)
    elif len(means):
        _scale(axes, means, curve)
    _number(axes.yaxis, short=found.log or max(map(abs, axes.get_ylim())) >= 1e5)
    axes.margins(x=0.01)
    if curve.against == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    elif axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    name_x(axes, canvas, curve.along)
    head(axes, canvas, curve.title, shown)
    return figure


def _draw_label(axes: Axes, canvas: Canvas, label: str, rows: pd.DataFrame, curve: Curve) -> None:
    look, x = canvas.look(label), rows["x"].to_numpy(float)
    low, high = (rows[side].to_numpy(float) * curve.unit for side in ("low", "high"))
    axes.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
    alone = "o" if len(rows) == 1 else ""  # a line needs two points to be seen
    axes.plot(x, rows["mean"].to_numpy(float) * curve.unit, linewidth=1.7, marker=alone, markersize=4, **look)


def _draw_broken(axes: Axes, canvas: Canvas, label: str, run: pd.DataFrame, curve: Curve) -> None:
    color = canvas.look(label)["color"]
    rows = run[np.isfinite(run[curve.column].to_numpy(float))]
    if rows.empty:
        return
    x, y = rows[curve.against].to_numpy(float), rows[curve.column].to_numpy(float) * curve.unit
    axes.plot(x, y, color=color, linewidth=0.7, alpha=0.8)
    axes.plot(x[-1:], y[-1:], color=color, marker="x", markersize=6, linestyle="none", markeredgewidth=1.4)


def _scale(axes: Axes, means: pd.DataFrame, curve: Curve) -> None:
    """Limits from the means, so that a wide band cannot hide them."""
    mean, low, high = (means[name].to_numpy(float) * curve.unit for name in ("mean", "low", "high"))
    bottom = first_shown(means, curve) * curve.unit
    room = max(mean.max() - bottom, 0.01 * abs(mean.max()), 1e-9) / 4
    bottom = max(bottom - room, float(np.nanmin(np.append(low, bottom - room / 4))))
    top = min(mean.max() + room, float(np.nanmax(np.append(high, mean.max() + room / 4))))
    axes.set_ylim(bottom, min(top, 100.4) if curve.unit != 1.0 else top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _scale_log(axes: Axes, means: pd.DataFrame) -> None:
    mean, low, high = (means[name].to_numpy(float) for name in ("mean", "low", "high"))
    axes.set_yscale("log")
    bottom = max(mean.min() / 3, float(np.nanmin(np.append(low, mean.min() / 1.2))))
    axes.set_ylim(bottom, min(mean.max() * 2, float(np.nanmax(np.append(high, mean.max() * 1.2)))))
    few = mean.max() / mean.min() < 100
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())


def _number(axis: Axis, short: bool) -> None:
    """Ticks that stand for themselves: no common power or offset above the axis, where the legend is."""
    brief = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axis.set_major_formatter(brief if short else ScalarFormatter(useOffset=False))


def first_shown(means: pd.DataFrame, curve: Curve) -> float:
    """The smallest mean on the axis: for an accuracy the steep first fifth of training may lie below it."""
    smallest = float(means["mean"].min())
    if curve.unit == 1.0:
        return smallest
    late = means[means["epoch"] > 0.2 * means["epoch"].max()]["mean"]
    cropped = float(late.min()) if len(late) else smallest
    return cropped if means["mean"].max() - cropped < 0.5 * (means["mean"].max() - smallest) else smallest
