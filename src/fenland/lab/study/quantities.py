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
        column: the name of the column.
        title: what it is, with its unit; the label of an axis.
        table: the table: "runs" has one row for each run, "epochs" one for each run and epoch.
        unit: the unit that is written behind its numbers.
        scale: the factor by which it is multiplied, such as 100 for percentage points of an accuracy.
        form: the format of its numbers, as in ``format(number, form)``.
        where: only rows with these values in other columns count; a function of the rows may give the value.
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
        """The same quantity over fewer rows; the arguments are added to ``where``."""
        return replace(self, where={**self.where, **where})

    @property
    def by_epoch(self) -> Quantity:
        """The same through training."""
        return replace(self, table="epochs")


def last_epoch(rows: pd.DataFrame) -> Any:
    """The last epoch of the rows, for `Quantity.at`: ``loss.at(epoch=last_epoch)``."""
    return rows["epoch"].max()


@dataclass(frozen=True)
class Contrast:
    """A number that compares cases, with its interval, for each part of the tables.

    ``contrast < bound``, ``contrast > bound`` and ``contrast.within(bound)`` are statements, for a `Claim`.

    Attributes:
        measure: a function of `Measured` that returns the intervals by the names of the parts; "" names the only one.
        template: how one is written: ``{key}`` stands for the part (``{value}`` may occur in its name), ``{value}``
            for the number with its interval.
        form: the format of the numbers.
        sign: whether positive numbers have a plus sign.
        word: what each number is, such as "a difference".
        over: what the intervals are over, such as "seeds".
        none: what is written where there is no part.
        exact: whether cases may agree exactly. An interval without width is then written as one number.
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
        """The statement that the intervals of all parts lie within ± bound."""
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
    """The statement that all of these hold; what they measured is written side by side."""

    def judge(measured: Measured) -> Finding:
        found = [statement(measured) for statement in statements]
        return replace(
            found[0], measured="; ".join(each.measured for each in found), holds=together(x.holds for x in found)
        )

    return judge


def gap(table: pd.DataFrame, axis: str, ours: object, theirs: object, over: str = "seed") -> Interval:
    """The interval of ``value`` at ``axis`` = ours minus that at theirs, over the seeds that have both.

    Several rows of a seed count as their mean, and the seed is left out where one of them has no number: means over
    different rows are no pair.
    """
    wide = table.pivot_table(index=over, columns=axis, values="value", aggfunc=lambda rows: rows.mean(skipna=False))
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
    """The difference of a quantity between two cases of a grid, paired over seeds.

    Runs of one seed share the order of the data and the initial weights. The interval is that of a paired t-test, 95 %.

    Args:
        quantity: the quantity that is compared.
        axis: the axis of the grid, a column of the table, that tells the two cases apart.
        ours: the value of the axis in the first case; the difference is first minus second.
        theirs: the value of the axis in the second case.
        each: a column; each of its values has a difference of its own. None for one difference over all rows.
        over: the column that says which rows form a pair.
        template: how the number is written, as in `Contrast`; by default the part, the number and the unit.
        of: a function that selects the rows that count.
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
    """The ratio of a positive quantity between two cases of a grid: the geometric mean over pairs, with its interval.

    Args:
        quantity: the quantity that is compared.
        axis: the axis of the grid that tells the two cases apart.
        ours: the value of the axis in the first case; the ratio is first over second.
        theirs: the value of the axis in the second case.
        each: as in `paired`.
        over: as in `paired`.
        template: as in `paired`.
        of: as in `paired`.
    """

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
