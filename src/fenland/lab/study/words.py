"""Numbers in words, answers from intervals, and the sentences that belong beside every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fenland.lab.store.statistics import Interval, interval

if TYPE_CHECKING:
    import pandas as pd

    from fenland.lab.study.parts import Measured

_Z = 1.959964  # 97.5 % point of the normal distribution


def share(hits: int, count: int) -> Interval:
    """hits / count with Wilson's 95 % interval, which is of use at 0 and 1 too (Wilson 1927)."""
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"hits = {hits!r}, count = {count!r}: must be 0 <= hits <= count, count >= 1")
    mean = hits / count
    z2 = _Z * _Z / count
    middle = (mean + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(mean * (1 - mean) / count + z2 / (4 * count)) / (1 + z2)
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half), count)


def percent(found: Interval) -> str:
    """A share in per cent with its interval."""
    return f"{in_percent(found.mean)} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def in_percent(share: float, places: int = 1) -> str:
    """A share in per cent, with so many decimals; with more where these would say 0 or 100 of what is neither."""
    whole = share in (0.0, 1.0)
    texts = (f"{100 * share:.{more}f}" for more in range(places, places + 4))
    return next((text for text in texts if (float(text) in (0.0, 100.0)) == whole), f"{100 * share:.3g}")


def shown(found: Interval, form: str = ".3g", sign: bool = True) -> str:
    """A mean with its interval."""
    plus = "+" if sign else ""
    if found.n == 0:
        return "not measured"
    if found.n == 1:
        return f"{found.mean:{plus}{form}} (one seed)"
    return f"{found.mean:{plus}{form}} [{found.low:{plus}{form}}, {found.high:{plus}{form}}]"


def half(values: Iterable[float], form: str = ".2f") -> str:
    """A mean with half of its interval, for the cell of a table."""
    found = interval(values)
    if not found.n:
        return "none"
    return f"{found.mean:{form}}" + (f" ± {found.high - found.mean:{form}}" if found.n > 1 else " (one seed)")


def span(found: Iterable[Interval], form: str = ".2f") -> str:
    """One interval, or the least and the greatest."""
    every = sorted(found, key=lambda each: each.mean)
    if not every:
        return "not measured"
    low, high = (shown(each, form, sign=False) for each in (every[0], every[-1]))
    return low if every[0] == every[-1] else f"{low} to {high}"


def above(found: Interval, bound: float = 0.0) -> bool | None:
    """Whether the mean lies above a bound; None where the interval holds it, or there is none."""
    return True if found.low > bound else False if found.high < bound else None


def below(found: Interval, bound: float = 0.0) -> bool | None:
    """Whether the mean lies below a bound; None where the interval holds it, or there is none."""
    return True if found.high < bound else False if found.low > bound else None


def together(answers: Iterable[bool | None]) -> bool | None:
    """A claim about several: false where one is, true where all are, open else."""
    every = list(answers)
    return False if False in every else None if None in every or not every else True


def sentences(*parts: str) -> str:
    """Those that are not empty, one after the other."""
    return " ".join(part for part in parts if part)


def by(table: pd.DataFrame, column: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The parts of a table with one value of a column each, in order of appearance."""
    for value in table[column].unique():
        yield value, table[table[column] == value]


def lossy(measured: Measured, *names: str) -> str:
    """A sentence on the data sets (these, or all) that were read from lossy files; empty where there is none."""
    if "data" not in measured.tables:
        return ""
    rows = measured["data"]
    found = [str(name) for name in rows[rows["stored"] == "JPEG"]["data"] if not names or name in names]
    if not found:
        return ""
    return (
        f"{', '.join(found)}: the files at hand are JPEG-recompressed, so that absolute numbers lie off those of the "
        "original set; compare methods with each other."
    )


def left_out(table: pd.DataFrame) -> str:
    """A sentence on runs that diverged where means leave them out; empty where none did."""
    count, runs = _diverged(table)
    return f"{count} of {runs} runs diverged and are left out." if count else ""


def guessed(table: pd.DataFrame) -> str:
    """A sentence on runs that diverged where they count as guessing; empty where none did."""
    count, runs = _diverged(table)
    return f"{count} of {runs} runs diverged; their accuracy counts as that of guessing." if count else ""


def _diverged(table: pd.DataFrame) -> tuple[int, int]:
    """How many runs of a table diverged, and how many there are; one that several cases share counts once."""
    runs = table.drop_duplicates(subset=["run"]) if "run" in table else table
    return int((runs["status"] != "finished").sum()), len(runs)
