"""Quantities of tables, contrasts between the cases of a grid, and statements about them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import numpy as np

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.parts import Finding, Measured, Statement
from fenland.lab.study.words import above, below, by, shown, together

if TYPE_CHECKING:
    import pandas as pd

Intervals = Mapping[str, Interval]
P = ParamSpec("P")


@dataclass(frozen=True)
class Quantity:
    """A column of a table.

    Attributes:
        column: of the table.
        title: what it is, with its unit, for an axis.
        table: "runs" has one row a run, "epochs" one a run and epoch.
        unit: behind a number of it.
        scale: what it is multiplied by (100 for points of an accuracy).
        form: of its numbers.
        where: values of other columns that rows must have; a function of the rows gives them for a column.
    """

    column: str
    title: str = ""
    table: str = "runs"
    unit: str = ""
    scale: float = 1.0
    form: str = ".3g"
    where: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, measured: Measured) -> pd.DataFrame:
        """The rows, with the quantity as ``value``."""
        rows = measured[self.table]
        for name, wanted in self.where.items():
            rows = rows[rows[name] == (wanted(rows) if callable(wanted) else wanted)]
        return rows.assign(value=self.scale * rows[self.column].astype(float))

    def at(self, **where: Any) -> Quantity:
        """The same of fewer rows."""
        return replace(self, where={**self.where, **where})

    @property
    def by_epoch(self) -> Quantity:
        """The same through training."""
        return replace(self, table="epochs")


def last_epoch(rows: pd.DataFrame) -> Any:
    """For `Quantity.at`: ``epoch=last_epoch``."""
    return rows["epoch"].max()


@dataclass(frozen=True)
class Contrast:
    """Intervals of a number that compares cases, one a part of the tables.

    Attributes:
        measure: them, by the names of the parts; "" where there is one.
        template: how each is said: ``{key}`` is the part, ``{value}`` (also in its name) the number with its interval.
        form: of the numbers.
        sign: whether they show a plus.
        word: what each is.
        over: what the intervals are over.
        none: said where there is no part.
        exact: whether cases may agree exactly: such an interval, which has no width, is said as one number.
    """

    measure: Callable[[Measured], Intervals]
    template: str = "{value}"
    form: str = ".3g"
    sign: bool = True
    word: str = "a difference"
    over: str = "seeds"
    none: str = "no finished run"
    exact: bool = False

    def __lt__(self, bound: float) -> Statement:
        return _Relation(self, "below", bound, lambda found: below(found, bound))

    def __gt__(self, bound: float) -> Statement:
        return _Relation(self, "above", bound, lambda found: above(found, bound))

    def within(self, bound: float) -> Statement:
        """Whether each lies within ± bound."""
        return _Relation(self, "within ±", bound, lambda x: together([above(x, -bound), below(x, bound)]))

    def said(self, found: Intervals) -> str:
        """The numbers in words."""
        words = [self.template.replace("{key}", key).format(value=self._shown(x)) for key, x in found.items()]
        return "; ".join(words) or self.none

    def _shown(self, found: Interval) -> str:
        same = self.exact and found.n > 1 and found.high - found.low <= 1e-6 * abs(found.mean)
        return f"{found.mean:{self.form}}" if same else shown(found, self.form, self.sign)


@dataclass(frozen=True)
class _Relation:
    """A contrast that is claimed to lie on one side of a bound: each part has to."""

    contrast: Contrast
    word: str
    bound: float
    answer: Callable[[Interval], bool | None]

    def __call__(self, measured: Measured) -> Finding:
        found, over = self.contrast.measure(measured), self.contrast.over
        space = "" if self.word.endswith("±") else " "
        return Finding(
            f"{self.contrast.word} {self.word}{space}{self.bound:g}", self.contrast.said(found),
            together(self.answer(each) for each in found.values()), open=undecided(over),
        )  # fmt: skip


def statement(function: Callable[Concatenate[Measured, P], Finding]) -> Callable[P, Statement]:
    """Make a function of what was measured and of more arguments a maker of statements: of these arguments alone."""

    @functools.wraps(function)
    def of(*arguments: P.args, **named: P.kwargs) -> Statement:
        return lambda measured: function(measured, *arguments, **named)

    return of


def undecided(over: str = "seeds") -> str:
    """Why a comparison of intervals is open."""
    return f"Not decided: an interval over {over} reaches to both sides, or there are too few; more {over} would tell."


def both(*statements: Statement) -> Statement:
    """All of them have to hold; what they measured stands side by side."""

    def judge(measured: Measured) -> Finding:
        found = [statement(measured) for statement in statements]
        return replace(
            found[0], measured="; ".join(each.measured for each in found), holds=together(x.holds for x in found)
        )

    return judge


def gap(table: pd.DataFrame, axis: str, ours: object, theirs: object, over: str = "seed") -> Interval:
    """The interval of ``value`` at ``axis`` = ours minus that at theirs, over the seeds that have both."""
    wide = table.pivot_table(index=over, columns=axis, values="value")
    if ours not in wide or theirs not in wide:
        return interval([])
    return interval((wide[ours] - wide[theirs]).dropna())


def parts(rows: pd.DataFrame, each: str | None) -> Mapping[str, pd.DataFrame]:
    """The rows by the values of a column, or all of them under ""."""
    return {"": rows} if each is None else {str(key): part for key, part in by(rows, each)}


def paired(
    quantity: Quantity, axis: str, ours: object, theirs: object, each: str | None = None, over: str = "seed",
    template: str = "", of: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> Contrast:  # fmt: skip
    """The difference between two cases of a grid, paired over seeds: they share data order and initial weights.

    Args:
        quantity: that differs.
        axis: of the grid, a column of the table.
        ours: its value less which
        theirs: is taken.
        each: column of the parts, each with a difference of its own; None for one.
        over: the column of the pairs.
        template: as in `Contrast`; by default the part, the number, the unit.
        of: rows to the rows that count.
    """

    def measure(measured: Measured) -> Intervals:
        rows = of(quantity.rows(measured))
        return {key: gap(part, axis, ours, theirs, over) for key, part in parts(rows, each).items()}

    unit = f" {quantity.unit}" if quantity.unit else ""
    plain = ("{key}: " if each else "") + "{value}" + unit
    return Contrast(measure, template or plain, quantity.form, over=f"{over}s")


def ratio(
    quantity: Quantity, axis: str, ours: object, theirs: object, each: str | None = None, over: str = "seed",
    template: str = "", of: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> Contrast:  # fmt: skip
    """The ratio of two cases of a positive quantity: a geometric mean over pairs. As `paired` else."""

    def measure(measured: Measured) -> Intervals:
        rows = logarithms(of(quantity.rows(measured)))
        found = {key: gap(part, axis, ours, theirs, over) for key, part in parts(rows, each).items()}
        return {key: ratio_of(log) for key, log in found.items()}

    plain = ("{key}: " if each else "") + "{value} times"
    return Contrast(measure, template or plain, quantity.form, False, "a ratio", f"{over}s")


def logarithms(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the logarithm of the value, NaN where it is not positive."""
    return rows.assign(value=np.log(rows["value"].where(rows["value"] > 0).astype(float)))


def ratio_of(log: Interval) -> Interval:
    """The interval of a ratio from that of its logarithm: a geometric mean over seeds."""
    return Interval(math.exp(log.mean), math.exp(log.low), math.exp(log.high), log.n)
