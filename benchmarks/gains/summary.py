"""What the records of a task say: gains over the base, seed by seed, with intervals, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fenland.lab.store.statistics import Interval, interval
from gains.plan import TEST
from gains.records import Row


@dataclass(frozen=True)
class Measure:
    """One number of a run."""

    title: str  # for people
    of: Callable[[Row], float | None]  # the number, from a row; None where the run has none
    places: int  # decimals that are shown
    more_is_better: bool  # whether a gain is a rise


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _corrupted(row: Row) -> float | None:
    kinds = row.get("corruptions")
    return 100 * sum(kind["accuracy"] for kind in kinds.values()) / len(kinds) if kinds else None


# Accuracies and the calibration error in percent, so that differences are percentage points.
MEASURES = {
    "accuracy": Measure("accuracy", lambda row: _percent(row["test_accuracy"]), 2, True),
    "loss": Measure("test loss", lambda row: row["test_loss"], 3, False),
    "ece": Measure("calibration error", lambda row: _percent(row["test_ece"]), 2, False),
    "corrupted": Measure("accuracy on corrupted images", _corrupted, 2, True),
}


def tests(rows: Sequence[Row], method: str) -> dict[int, Row]:
    """The finished runs of a method on the test set, by seed."""
    own = (row for row in rows if row["method"] == method and row["purpose"] == TEST)
    return {row["settings"]["seed"]: row for row in own if row["status"] == "finished"}


def diverged(rows: Sequence[Row], method: str) -> int:
    """How many runs of a method on the test set did not finish; means and differences are without them."""
    return sum(row["method"] == method and row["purpose"] == TEST and row["status"] != "finished" for row in rows)


def mean(rows: Sequence[Row], method: str, measure: Measure) -> Interval:
    """A method's own number over its seeds."""
    return interval(_numbers([measure.of(row) for row in tests(rows, method).values()]))


def difference(rows: Sequence[Row], method: str, other: str, measure: Measure) -> Interval:
    """A method minus another over the seeds that both have, a paired t-interval."""
    ours, theirs = tests(rows, method), tests(rows, other)
    pairs = [(measure.of(ours[seed]), measure.of(theirs[seed])) for seed in ours if seed in theirs]
    return interval([a - b for a, b in pairs if a is not None and b is not None])


def cost(rows: Sequence[Row], method: str, base: str) -> float | None:
    """Seconds of the training process over those of the base; None where one has no run."""
    ours, theirs = (_numbers([row["process_seconds"] for row in tests(rows, name).values()]) for name in (method, base))
    return (sum(ours) / len(ours)) / (sum(theirs) / len(theirs)) if ours and theirs else None


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
