"""Which runs a task consists of, in which order, and which of them are missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fenland.lab.config import RunConfig
from gains.records import Row, Rows
from gains.tasks import REST, Point, Task

# What a run is for: to choose a point, to be compared on the test set, or SAM's curve over the radius.
CHOOSING, TEST, RADIUS = "choosing", "test", "radius"
CURVES = ("SAM", "SSAM")
_FILES = ("data_id", "model_id")
# Seeds that every method has before one has more: three give an interval.
EARLY = 3


@dataclass(frozen=True)
class Unit:
    """One run of the plan."""

    task: str  # its key
    method: str  # its name in the task
    purpose: str  # ``CHOOSING``, ``TEST`` or ``RADIUS``
    run: RunConfig  # what is trained; where the data lie is filled in by who runs it
    steps: int  # optimizer steps of it
    known: bool = True  # false where the method has not chosen its point yet, and ``run`` stands for one at any of them

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies the run in the records, wherever its files lie."""
        told = {name: value for name, value in self.run.identity().items() if name not in _FILES}
        plain: dict[str, Any] = json.loads(json.dumps(told))
        return plain

    @property
    def gradients(self) -> float:
        """Gradients of single examples: what the run costs, up to the size of its network."""
        given = {name: int(value) for name, _, value in (text.partition("=") for text in self.run.options)}
        ascents = 0.0 if self.run.rho is None else (self.steps - given.get("start", 0)) / given.get("k", 1)
        return (self.steps + ascents) * self.run.batch_size


def unit(key: str, task: Task, name: str, purpose: str, point: Point | None, seed: int = 0) -> Unit:
    """A run on the test set, or one of half the length on held-out examples; without a point it is not known yet."""
    method, choosing = task.methods[name], purpose != TEST
    epochs = round(task.fields["epochs"] * method.longer)
    half = dict(task.half) if choosing else {}
    epochs = max(epochs // 2, 1) if choosing and not half else epochs
    left = task.examples - (task.validate if choosing and "limit" not in task.fields else 0)
    examples = half.get("limit", left)
    steps = epochs * (examples // task.fields["batch_size"])
    late = [f"start={round(method.late * steps)}"] if method.late else []
    rate, rho = point or method.points[0]
    own = {"epochs": epochs, "lr": rate, "rho": rho, "options": (*method.options, *late), "seed": seed}
    held = {"validate": task.validate if choosing else 0, "evaluate_every": epochs, "weights": not choosing}
    run = RunConfig(**{**task.fields, **half, **own, **held}, data=task.data, optimizer=method.optimizer)
    return Unit(key, name, purpose, run, steps, point is not None)


def chosen(key: str, task: Task, name: str, rows: Rows) -> Point | None:
    """The point with the highest validation accuracy; None while one of its runs is missing.

    Not the lowest loss: where a network interpolates, that falls at small learning rates that cost the base accuracy,
    and accuracy is what the methods are compared by first. Of equal ones the lower loss counts. A run that diverged
    counts as tried, and is chosen only where all did.
    """
    key, task = task.like or (key, task)
    found = []
    for point in task.methods[name].points:
        row = rows.find(key, unit(key, task, name, CHOOSING, point).settings)
        if row is None:
            return None
        found.append((-accuracy_of(row), loss_of(row), point))
    return min(found, key=lambda each: each[:2])[2]


def accuracy_of(row: Row) -> float:
    """The accuracy of a row on the examples that it was tested on; below any other where the run diverged."""
    return -1.0 if row["status"] != "finished" or row["test_accuracy"] is None else float(row["test_accuracy"])


def loss_of(row: Row) -> float:
    """The loss of a row on the examples that it was tested on; infinite where the run diverged."""
    return float("inf") if row["status"] != "finished" or row["test_loss"] is None else float(row["test_loss"])


def units(tasks: Mapping[str, Task], rows: Rows) -> Iterator[Unit]:
    """All that the plan holds, in its order."""
    first = {key: task for key, task in tasks.items() if not task.rest}
    for key, task in first.items():
        yield from _of_task(key, task, _turns(task)[0], rows)
    for key, task in first.items():
        yield from _of_task(key, task, _turns(task)[1], rows)
    for key, task in tasks.items():
        if task.rest:
            for turns in _turns(task):
                yield from _of_task(key, task, turns, rows)


def _turns(task: Task) -> tuple[list[int], list[int]]:
    """Those of the task itself, and what is tried when all else is done."""
    found = sorted({method.turn for method in task.methods.values()})
    return [turn for turn in found if turn != REST], [turn for turn in found if turn == REST]


def _of_task(key: str, task: Task, turns: list[int], rows: Rows) -> Iterator[Unit]:
    names = [name for turn in turns for name, method in task.methods.items() if method.turn == turn]
    for turn in turns:
        group = [name for name in names if task.methods[name].turn == turn]
        for name in group if task.like is None else ():
            for point in task.methods[name].points:
                yield unit(key, task, name, CHOOSING, point)
        yield from _seeds(key, task, group, range(min(EARLY, task.seeds)), rows)
    yield from _seeds(key, task, names, range(EARLY, task.seeds), rows)
    for name in (name for name in CURVES if name in names):
        yield from curve(key, task, name, rows)


def _seeds(key: str, task: Task, names: list[str], seeds: range, rows: Rows) -> Iterator[Unit]:
    for seed in seeds:
        for name in names:
            yield unit(key, task, name, TEST, chosen(key, task, name, rows), seed)


def curve(key: str, task: Task, name: str, rows: Rows) -> Iterator[Unit]:
    """The runs of a method's curve over the radius, at its chosen learning rate and on the held-out examples."""
    point = chosen(key, task, name, rows)
    for rho in task.radii:
        yield unit(key, task, name, RADIUS, None if point is None else (point[0], rho))


def missing(tasks: Mapping[str, Task], rows: Rows) -> list[Unit]:
    """What the plan holds and the records do not."""
    return [each for each in units(tasks, rows) if not each.known or rows.find(each.task, each.settings) is None]
