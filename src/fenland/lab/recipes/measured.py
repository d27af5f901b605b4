"""What the runs behind the recipes say, from the file that comes with the package.

``measured.json`` is made from the records by ``python docs/measured_recipes.py``, since an installed package has no
records; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")
Row = Mapping[str, Any]
# Column of a row, its name, its unit, its factor, digits.
QUANTITIES = (
    ("test_accuracy", "accuracy", " points", 100.0, 2),
    ("test_loss", "test loss", "", 1.0, 3),
    ("test_ece", "calibration error", " points", 100.0, 2),
)


@dataclass(frozen=True)
class Measured:
    """A method on a task, beside the base.

    Args:
        lr: chosen on held-out examples.
        rho: likewise.
        choosing: runs that were compared for it.
        seeds: pairs of runs on the test set.
        gains: for each of ``QUANTITIES`` with two pairs at least, method minus base: mean, low and high end of its 95 %
            interval; in the units of the rows.
        cost: CPU seconds of the method over those of the base.
    """

    lr: float
    rho: float
    choosing: int
    seeds: int
    gains: Mapping[str, Sequence[float]]
    cost: float | None

    @property
    def sentence(self) -> str:
        """The gains and the cost, for people."""
        parts = []
        for column, name, unit, factor, digits in QUANTITIES:
            mean, low, high = (factor * each for each in self.gains[column])
            parts.append(f"{name} {mean:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f})")
        return f"{', '.join(parts)}; {self.seeds} paired seeds, {self.cost:.2f} times the seconds of the base"


@cache
def _table() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def measured(task: str, method: str) -> Measured | None:
    """What is known of a method on a task; None where it has not chosen its point yet."""
    found = _table().get(f"{task} / {method}")
    return None if found is None else Measured(**found)


def summarised(rows: Sequence[Row], method: str, base: str, interval: Callable[[list[float]], Any]) -> Measured | None:
    """What the rows of a task say of a method; None while a run is missing that it needs to choose its point.

    Its point is that of its runs on the test set, which the plan takes from the choosing.

    Args:
        rows: of one task, see ``fenland.lab.evidence.records``.
        method: its name.
        base: the name of the one that it is compared with.
        interval: see ``fenland.lab.store.statistics.interval``.
    """
    ended = [row for row in rows if row["status"] == "finished"]
    ours, theirs = (_by_seed(ended, name) for name in (method, base))
    if not ours:
        return None
    settings = next(iter(ours.values()))["settings"]
    choosing = sum(row["purpose"] == "choosing" and row["method"] == method for row in rows)
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    gains = {}
    for column, *_ in QUANTITIES if len(pairs) > 1 else ():
        found = interval([mine[column] - other[column] for mine, other in pairs])
        gains[column] = [round(each, 6) for each in (found.mean, found.low, found.high)]
    spent = [sum(row["process_seconds"] for row in side) for side in zip(*pairs, strict=True)]
    cost = round(spent[0] / spent[1], 3) if pairs else None
    return Measured(settings["lr"], settings["rho"], choosing, len(pairs), gains, cost)


def _by_seed(rows: Sequence[Row], method: str) -> dict[int, Row]:
    return {row["settings"]["seed"]: row for row in rows if (row["method"], row["purpose"]) == (method, "test")}
