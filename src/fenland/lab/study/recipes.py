"""Recipes of figures: what is shown of which quantity, by what. Alt text comes from the numbers that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.intervals import draw_intervals
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel, draw_panels
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, finished, interval
from fenland.lab.study.parts import Measured
from fenland.lab.study.quantities import Quantity
from fenland.lab.study.words import by, sentences

Recipe = Callable[[Measured], Drawn | Sequence[Drawn]]
Words = str | Callable[[Measured], str]
# Lines of so many points are read out whole.
_FEW = 10


@dataclass(frozen=True)
class Seeds:
    """A figure with one row for each case: seeds are rings, their mean is a dot, its 95 % interval a bar.

    Attributes:
        name: the name of its files.
        quantity: the quantity that is shown.
        by: the column that names the cases.
        caption: what a reader must know, in addition to what every such figure says.
        label: a function that writes the name of a case.
        title: the title of the figure; by default that of the quantity.
    """

    name: str
    quantity: Quantity
    by: str
    caption: Words = ""
    label: Callable[[Any], str] = str
    title: str = ""

    def __call__(self, measured: Measured) -> Drawn:
        """The figure."""
        rows = self.quantity.rows(measured).dropna(subset=["value"])
        values = {self.label(case): part["value"].tolist() for case, part in by(rows, self.by)}
        title = self.title or self.quantity.title
        means = "; ".join(f"{label}: {np.mean(numbers):.4g}" for label, numbers in values.items())
        return Drawn(
            self.name, title,
            f"{worded(self.caption, measured)} Rings are seeds, dots their means, bars the 95 % interval of the "
            "mean.".strip(),
            f"{title}. Means over seeds: {means}.",
            lambda canvas: draw_intervals(title, self.quantity.title.lower(), canvas, values), tuple(values),
        )  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A figure of panels with lines.

    Attributes:
        name: the name of its files.
        title: what it shows, with the unit.
        panels: a function of `Measured` that returns the panels.
        caption: how to read it.
        labels: the lines in the order of colours; empty for the order in which they appear.
        columns: how many panels stand side by side.
        height: the height of a row of panels in points; 0 for the usual one.
    """

    name: str
    title: str
    panels: Callable[[Measured], Sequence[Panel]]
    caption: Words = ""
    labels: tuple[str, ...] = ()
    columns: int = 1
    height: float = 0.0

    def __call__(self, measured: Measured) -> Drawn:
        """The figure."""
        panels = list(self.panels(measured))
        seen = dict.fromkeys([*self.labels, *(line.label for panel in panels for line in panel.lines)])
        return Drawn(
            self.name, self.title, worded(self.caption, measured), f"{self.title}. {spoken(panels)}",
            lambda canvas: draw_panels(canvas, self.title, panels, self.columns, self.height), tuple(seen),
        )  # fmt: skip


def curves(
    name: str, by: str, quantities: Sequence[Quantity], *, title: str, caption: Words = "", log: Sequence[str] = (),
    label: Callable[[Any], str] = str, marks: Callable[[Measured], Sequence[Mark]] = lambda measured: (),
) -> Plot:  # fmt: skip
    """A figure of curves over epochs: one panel for each quantity, one line for each case, with bands over seeds.

    Runs that diverged are left out: a mean that loses a seed on its way would jump there.

    Args:
        name: the name of its files.
        by: the column that names the cases.
        quantities: quantities of the table "epochs".
        title: the title of the figure.
        caption: what a reader must know, in addition to what every such figure says.
        log: the columns that have a logarithmic axis.
        label: a function that writes the name of a case.
        marks: a function of `Measured` that returns reference lines.
    """

    def panels(measured: Measured) -> list[Panel]:
        lines = {q.title: lines_of(finished(q.rows(measured)), by, "epoch", label) for q in quantities}
        return [
            Panel(lines[q.title], "epoch", q.title, log_y=q.column in log, marks=marks(measured), whole=True)
            for q in quantities
        ]

    def words(measured: Measured) -> str:
        over = "Means over seeds, bands are 95 % intervals."
        rows = [q.rows(measured) for q in quantities]
        broken = any(len(finished(each)) < len(each) for each in rows)
        return sentences(worded(caption, measured).strip(), over, "Runs that diverged are not drawn." * broken)

    return Plot(name, title, panels, words)


def lines_of(
    rows: pd.DataFrame, by_column: str, along: str, label: Callable[[Any], str] = str, kind: Any = "line"
) -> list[Line]:
    """A line a case: mean and 95 % band of ``value`` over seeds, along a column."""
    return [line_of(label(case), part, along, kind) for case, part in by(rows, by_column)]


def line_of(label: str, rows: pd.DataFrame, along: str, kind: Any = "line") -> Line:
    """Mean and 95 % band of ``value`` over seeds, along a column; a seed counts as far as it came."""
    found = {x: interval(part["value"]) for x, part in rows.groupby(along)}
    kept = {x: each for x, each in found.items() if each.n}
    bottom, top = _limits(rows)
    # Of one seed there is no band: its bounds are NaN, and stay so.
    low, high = (np.clip([each[side] for each in kept.values()], bottom, top).tolist() for side in (1, 2))
    return Line(label, list(kept), [each.mean for each in kept.values()], low, high, kind)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """A band of an accuracy stays within what an accuracy can be."""
    if "test_accuracy" not in rows or not len(rows):
        return -np.inf, np.inf
    accuracy = rows["test_accuracy"].astype(float)
    scale = (rows["value"] / accuracy).dropna()
    same = len(scale) and np.allclose(scale, scale.iloc[0]) and scale.iloc[0] > 0
    return (0.0, float(scale.iloc[0])) if same else (-np.inf, np.inf)


def joined(label: str, found: Mapping[Any, Interval], kind: Any = "joined") -> Line:
    """A line through numbers that have their intervals already."""
    mean, low, high = ([getattr(each, name) for each in found.values()] for name in ("mean", "low", "high"))
    return Line(label, list(found), mean, low, high, kind)


def colours(optimizers: Iterable[str]) -> tuple[str, ...]:
    """Labels of a figure by their titles: a method that other studies show too keeps its colour and line style."""
    return tuple(dict.fromkeys((*METHODS, *map(title_of, optimizers))))


def spoken(panels: Sequence[Panel]) -> str:
    """What is drawn, in words and numbers, for those who cannot see it."""
    return " ".join(words for words in map(_panel, panels) if words)


def _panel(panel: Panel) -> str:
    lines = [line for line in panel.lines if line.kind != "theory" and len(line.x)]
    head = f"{panel.title}: " if panel.title else ""
    words = "; ".join(_line(line, panel.along) for line in lines)
    return f"{head}{words}." if words else ""


def _line(line: Line, along: str) -> str:
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    kept = np.isfinite(y)
    if not kept.any():
        return f"{line.label} nothing"
    x, y = x[kept], y[kept]
    if len(x) <= _FEW and line.kind != "line":
        return f"{line.label} " + ", ".join(f"{b:.4g} at {a:.4g}" for a, b in zip(x, y, strict=True))
    return f"{line.label} {y[0]:.4g} at first, {y[-1]:.4g} at {along} {x[-1]:.4g}"


def worded(words: Words, measured: Measured) -> str:
    """Words that may depend on what was measured."""
    return words if isinstance(words, str) else words(measured)


def beside(label: str, x: Any, law: Any, y: Any) -> list[Line]:
    """Measured points on the thin line of a closed form."""
    return [Line(label, x, law, kind="theory"), Line(label, x, y, kind="dots")]
