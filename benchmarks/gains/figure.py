"""The pictures of docs/evidence.md: gains with intervals, and validation loss over the radius."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fenland.lab.figures.style import DARK, PAPER, RC, SMALL, TEXT, Canvas, Ink, blanks, head_all, headroom_of, name_x
from fenland.lab.store.statistics import Interval
from gains import plan
from gains.page import Compared
from gains.records import Rows
from gains.summary import MEASURES, difference
from gains.tasks import TASKS, Task

INKS = {"light": PAPER, "dark": Ink("#e6e9ed", "#a9b3bd", "#3a434d", "#1e2129", DARK)}
EPOCHS, SECONDS = "at the same epochs", "at the same seconds"
# What the gains are drawn for, with the name of its axis: a gain in accuracy lies right of zero, the others left.
PANELS = {"accuracy": "accuracy, points", "loss": "test loss", "ece": "calibration, points"}
# Points of the height: a row of the gains, a task's own line, and axes of the curve.
_ROW, _AXES = 17.0, 150.0
# From a measure and a base to the difference from that base.
Gains = dict[tuple[str, str], Interval]
Line = tuple[str, Gains]


def gains(tasks: Sequence[Compared]) -> tuple[list[Line], Callable[[Canvas], Figure]]:
    """Rows of the picture of what was gained, and what draws it; no rows where no comparison is complete."""
    lines: list[Line] = []
    for task in tasks:
        own = [(name, found) for name, other in task.methods.items() if (found := _gained(task, name, other))]
        lines += [(task.title, {}), *own] if own else []
    return lines, lambda canvas: _draw_gains(canvas, lines)


def _gained(task: Compared, name: str, matched: str) -> Gains:
    pairs = {kind: other for kind, other in {EPOCHS: task.base, SECONDS: matched}.items() if other}
    found = {
        (measure, kind): difference(task.rows, name, other, MEASURES[measure])
        for measure in PANELS
        for kind, other in pairs.items()
    }
    return {each: it for each, it in found.items() if it.n >= task.needed}


def _draw_gains(canvas: Canvas, lines: list[Line]) -> Figure:
    room = headroom_of(canvas, canvas.labels)
    figure, every = blanks(canvas, room + 46 + _ROW * len(lines), columns=len(PANELS), headroom=room)
    for axes, (measure, title) in zip(every, PANELS.items(), strict=True):
        _draw_panel(axes, canvas, lines, measure)
        axes.set_yticks([])
        name_x(axes, canvas, title, "left")  # beside each other, names at right ends would meet the next axis
    first = every[0]
    for place, (label, found) in enumerate(lines):
        if not found:
            first.annotate(
                label, (0, place), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL - 1,
                color=canvas.ink.text, annotation_clip=False,
            ).set_in_layout(False)  # fmt: skip
    first.set_yticks([place for place, (_, found) in enumerate(lines) if found])
    first.set_yticklabels([label for label, found in lines if found])
    head_all(figure, canvas, "", canvas.labels)
    return figure


def _draw_panel(axes: Axes, canvas: Canvas, lines: list[Line], measure: str) -> None:
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(2))
    # Zero is drawn beside the methods only: it would run through the titles of the tasks.
    own = [place for place, (_, found) in enumerate(lines) if found]
    axes.vlines([0.0] * len(own), [each - 0.5 for each in own], [each + 0.5 for each in own], canvas.ink.soft)
    for place, (_, found) in enumerate(lines):
        for kind, height in ((EPOCHS, place - 0.16), (SECONDS, place + 0.16)):
            it = found.get((measure, kind))
            if it is not None:
                look = canvas.look(kind)
                axes.plot([it.low, it.high], [height, height], linewidth=1.8, **look)
                axes.plot([it.mean], [height], "o", markersize=4.5, color=look["color"])
    axes.set_ylim(len(lines) - 0.4, -0.7)


def radii(rows: Rows, tasks: Mapping[str, Task] = TASKS) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """From a task's title to each curve's (rho, validation loss); tasks with less than three points are left out."""
    found = {}
    for key, task in tasks.items():
        curves = {name: _curve(key, task, name, rows) for name in plan.CURVES if name in task.methods}
        if any(len(points) >= 3 for points in curves.values()):
            found[task.title] = curves
    return found


def _curve(key: str, task: Task, name: str, rows: Rows) -> list[tuple[float, float]]:
    units = [each for each in plan.curve(key, task, name, rows) if each.known]
    pairs = [(each.run.rho, rows.find(key, each.settings)) for each in units]
    return [(float(rho or 0.0), plan.loss_of(row)) for rho, row in pairs if row and row["status"] == "finished"]


def draw_radii(canvas: Canvas, found: Mapping[str, Mapping[str, list[tuple[float, float]]]]) -> Figure:
    """One pair of axes a task, below each other."""
    room = headroom_of(canvas, canvas.labels)
    figure, every = blanks(canvas, room + _AXES * len(found), rows=len(found), headroom=room)
    for axes, (title, curves) in zip(every, found.items(), strict=True):
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.8, **canvas.look(name))
        axes.set_xscale("log")
        axes.set_title(f"{title}: validation loss", loc="left", fontsize=SMALL - 1, color=canvas.ink.text)
        name_x(axes, canvas, "rho")
    head_all(figure, canvas, "", canvas.labels)
    return figure


def svg(name: str, theme: str, labels: Sequence[str], draw: Callable[[Canvas], Figure], alt: str) -> str:
    """A picture as SVG with words for screen readers, the same text each time."""
    with matplotlib.rc_context({**RC, "font.size": TEXT - 1, "svg.hashsalt": name}):
        text = io.StringIO()
        figure = draw(Canvas(INKS[theme], labels))
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": alt})
    return re.sub(r"[ \t]+$", "", text.getvalue(), flags=re.M)
