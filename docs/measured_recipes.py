"""What the records say of each recipe: python docs/measured_recipes.py writes the file that the package carries."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # where `gains` is

from fenland.lab.recipes import RECIPES
from fenland.lab.recipes.measured import FILE, Measured
from fenland.lab.store.files import write_text
from gains import plan, summary
from gains.page import written
from gains.records import Rows
from gains.tasks import TASKS, Task

RECORDS = Path(__file__).parent / "records" / "evidence"
UNITS = {"accuracy": " points", "loss": "", "ece": " points"}


def content(records: Path = RECORDS) -> str:
    """The file, from the records."""
    rows = Rows(records)
    pairs = {f"{recipe.task} / {recipe.method}": (recipe.task, recipe.method) for recipe in RECIPES.values()}
    found = {name: known(rows, *pair) for name, pair in pairs.items()}
    return json.dumps({name: asdict(each) for name, each in found.items() if each is not None}, indent=1) + "\n"


def known(rows: Rows, key: str, method: str, tasks: Mapping[str, Task] = TASKS) -> Measured | None:
    """The point that a method chose, and its gain; None while one of its tries is missing."""
    task = tasks[key]
    point = plan.chosen(key, task, method, rows)
    if point is None or point[1] is None:
        return None
    return Measured(point[0], point[1], len(task.methods[method].points), gain(rows, key, method, tasks))


def gain(rows: Rows, key: str, method: str, tasks: Mapping[str, Task] = TASKS) -> str:
    """The method minus the base on the test set; empty while it has less seeds than the page wants."""
    task, own = tasks[key], rows.of(key)
    least = min(plan.EARLY, task.seeds)
    found = {kind: summary.difference(own, method, task.base, summary.MEASURES[kind]) for kind in UNITS}
    if found["accuracy"].n < least:
        return ""
    parts = [_said(kind, each) for kind, each in found.items()]
    text = (
        f"{', '.join(parts)}, over {found['accuracy'].n} seeds, {summary.cost(own, method, task.base):.2f} times the "
    )
    text += f"seconds of {task.base}"
    matched = task.methods[method].same_seconds
    if matched:
        same = summary.difference(own, method, matched, summary.MEASURES["accuracy"])
        text += f"; at the same seconds {_said('accuracy', same) if same.n >= least else 'not measured yet'}"
    return text


def _said(kind: str, found: summary.Interval) -> str:
    measure = summary.MEASURES[kind]
    return f"{measure.title} {written(found, measure, signed=True).strip('*')}{UNITS[kind]}"


if __name__ == "__main__":
    write_text(FILE, content())
