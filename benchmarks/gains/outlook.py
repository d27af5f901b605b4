"""How much of the plan is left, and about how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gains import plan
from gains.records import Row, Rows
from gains.tasks import Task

# Seconds of one core a gradient of one example, where a task has no rows yet to tell it: an AMD EPYC at 2.45 GHz that
# others used too.
SECONDS = {"minilm-l6": 0.03, "lenet": 1.6e-4, "convnet": 1.8e-3}


@dataclass(frozen=True)
class Outlook:
    """What is left of a task."""

    task: str  # its key
    done: int  # runs with a row
    missing: Mapping[str, Mapping[str, int]]  # from a method to the purposes of its missing runs and their numbers
    hours: float  # of one core, about, for the missing ones

    @property
    def left(self) -> int:
        """How many runs are missing."""
        return sum(sum(counts.values()) for counts in self.missing.values())


def outlook(tasks: Mapping[str, Task], rows: Rows) -> list[Outlook]:
    """One a task, in the order of the plan."""
    found = []
    missing = plan.missing(tasks, rows)
    for key, task in tasks.items():
        mine = [each for each in missing if each.task == key]
        counts: dict[str, dict[str, int]] = {name: {} for name in task.methods}
        for each in mine:
            counts[each.method][each.purpose] = counts[each.method].get(each.purpose, 0) + 1
        hours = sum(each.gradients for each in mine) * pace(task, rows.of(key)) / 3600
        found.append(Outlook(key, len(rows.of(key)), counts, hours))
    return found


def pace(task: Task, rows: list[Row]) -> float:
    """Seconds a gradient of one example, from the runs that are done."""
    done = [row for row in rows if row["status"] == "finished"]
    gradients = sum(row["gradient_evaluations"] * row["settings"]["batch_size"] for row in done)
    return sum(row["process_seconds"] for row in done) / gradients if gradients else SECONDS[task.fields["model"]]
