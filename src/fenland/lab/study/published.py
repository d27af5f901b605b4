"""Published tables as data, and whether what was measured agrees with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from fenland.lab.store.statistics import Interval, half_width, interval
from fenland.lab.study.parts import Finding, Measured, Statement
from fenland.lab.study.quantities import Quantity, undecided
from fenland.lab.study.words import shown, together


class Cell(NamedTuple):
    """A published mean with its standard deviation, in the unit of the quantity."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Published:
    """A table of a paper."""

    axis: str  # column of the cases, which are its rows
    columns: Mapping[str, Mapping[float, Cell]]  # its columns by name of the quantity, cells by case
    seeds: int  # that its means are over

    def half(self, column: str, case: float) -> float:
        """Half of the 95 % interval of a cell."""
        return half_width(self.columns[column][case].deviation, self.seeds)

    def agrees(self, quantity: Quantity, cases: Sequence[float], column: str = "") -> Statement:
        """Whether the published intervals and those of a quantity overlap, case by case."""
        name = column or quantity.column

        def judge(measured: Measured) -> Finding:
            rows, form = quantity.rows(measured), quantity.form
            found = {case: interval(rows[rows[self.axis] == case]["value"]) for case in cases}
            halves = {case: self.half(name, case) for case in cases}
            means = {case: self.columns[name][case].mean for case in cases}
            return Finding(
                "; ".join(f"{means[case]:{form}} ± {halves[case]:{form}} at {case:g}" for case in cases),
                "; ".join(f"{shown(each, form, sign=False)} at {case:g}" for case, each in found.items()),
                together(_overlap(x, means[case] - halves[case], means[case] + halves[case])
                         for case, x in found.items()),
                open=undecided(),
            )  # fmt: skip

        return judge


def _overlap(found: Interval, low: float, high: float) -> bool | None:
    return None if found.n < 2 else found.low <= high and found.high >= low


def next_draw(numbers: np.ndarray, rows: int = 1) -> tuple[float, float]:
    """Where one more draw would lie: mean ± t * s * sqrt(1 + 1/n), 95 % for ``rows`` such statements together."""
    n = len(numbers)
    if n < 2 or not np.isfinite(numbers).all():
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 1 - 0.05 / rows / 2)) * float(numbers.std(ddof=1)) * math.sqrt(1 + 1 / n)
    return float(numbers.mean()) - half, float(numbers.mean()) + half
