"""What sharpness costs, and which method gives most for the same time: accuracy against seconds and evaluations.

    python benchmarks/cheaper_sharpness.py --data-dir FOLDER [--seconds 120] [--seeds 0 1 2] [--out FILE.json]

Every method trains for the same wall clock: after a few timed epochs each gets as many as fit into --seconds, and
its learning rate falls along its own cosine over just these. So a method that pays two gradients a step has half the
epochs, not twice the time. Reported: accuracy at the end, seconds and gradient evaluations until the test loss first
falls to --target (the worst of the methods' best losses where none is given, so that all get there), a chart, JSON.
The defaults (LeNet, 5000 images) suit a CPU; on a GPU: --model resnet20 --limit 0 --device cuda --seconds 900.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fenland.lab.config import RunConfig
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.files import save_files
from fenland.lab.figures.plots import Line, Panel, draw_panels
from fenland.lab.figures.style import Canvas
from fenland.lab.store.environment import describe
from fenland.lab.training.trainer import train

# RST+SSAM: the ascent on half of the steps, and d brought back to the length of g.
METHODS = {
    "SGD": "sgd",
    "SAM": "sam",
    "SSAM": "ssam",
    "MSAM": "msam",
    "LookSAM": "looksam",
    "RST+SSAM": "stable-rst",
    "ESAM": "esam",
}


def seconds_an_epoch(configs: dict[str, RunConfig], rounds: int = 3) -> dict[str, float]:
    """The quickest of a few epochs of each, taken in turns: what else the machine does only adds to them."""
    taken: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(rounds):
        for name, config in configs.items():
            taken[name].append(train(replace(config, epochs=1)).records[-1].seconds)
    return {name: min(times) for name, times in taken.items()}


def run(config: RunConfig, epochs: int) -> dict[str, Any]:
    """One training."""
    result = train(replace(config, epochs=epochs))
    rows = [
        {
            "epoch": r.epoch,
            "seconds": r.seconds,
            "evaluations": r.gradient_evaluations,
            "test_loss": r.test_loss,
            "test_accuracy": r.test_accuracy,
        }
        for r in result.records
    ]
    return {"epochs": epochs, "rows": rows}


def first_below(rows: list[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """The first epoch whose test loss is at the target or below it."""
    return next((row for row in rows if row["test_loss"] <= target), None)


def summary(runs: dict[str, list[dict[str, Any]]], target: float) -> dict[str, dict[str, Any]]:
    """Means over the seeds; None where a seed never got to the target."""
    table = {}
    for name, seeds in runs.items():
        reached = [first_below(r["rows"], target) for r in seeds]
        got = [r for r in reached if r is not None]
        all_got = len(got) == len(seeds)
        table[name] = {
            "epochs": statistics.mean(r["epochs"] for r in seeds),
            "accuracy": statistics.mean(r["rows"][-1]["test_accuracy"] for r in seeds),
            "seconds": statistics.mean(r["rows"][-1]["seconds"] for r in seeds),
            "evaluations": statistics.mean(r["rows"][-1]["evaluations"] for r in seeds),
            "seconds_to_target": statistics.mean(r["seconds"] for r in got) if all_got else None,
            "evaluations_to_target": statistics.mean(r["evaluations"] for r in got) if all_got else None,
        }
    return table


def draw(canvas: Canvas, runs: dict[str, list[dict[str, Any]]], title: str) -> Figure:
    """Test accuracy against seconds, and against evaluations; the mean of the seeds, epoch by epoch."""
    panels = []
    for key, along in (("seconds", "seconds of training"), ("evaluations", "gradient evaluations")):
        lines = []
        for name, seeds in runs.items():
            shortest = min(len(r["rows"]) for r in seeds)
            mean = [
                [statistics.mean(r["rows"][i][what] for r in seeds) for i in range(shortest)]
                for what in (key, "test_accuracy")
            ]
            lines.append(Line(name, mean[0], [100 * y for y in mean[1]]))
        panels.append(Panel(lines, along))
    return draw_panels(canvas, title, panels)


def show(table: dict[str, dict[str, Any]], target: float) -> None:
    """The table; costs up to the target where every seed got there."""
    print(f"{'':10}{'epochs':>7}{'acc. %':>8}{'seconds':>9}{'gradients':>11}   to test loss {target:.3f}:")
    for name, row in table.items():
        to = "not reached"
        if row["seconds_to_target"] is not None:
            to = f"{row['seconds_to_target']:8.1f} s {row['evaluations_to_target']:9.0f} gradients"
        print(
            f"{name:10}{row['epochs']:7.1f}{100 * row['accuracy']:8.2f}{row['seconds']:9.1f}"
            f"{row['evaluations']:11.0f}   {to}"
        )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", help="folder with the data's parquet files")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--limit", type=int, default=5000, help="train images; 0 for all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--target", type=float, help="test loss")
    parser.add_argument("--out", type=Path, help="JSON; the chart is written beside it")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    base = RunConfig(
        given.data,
        given.model,
        "sgd",
        lr=given.lr,
        limit=given.limit or None,
        augment=given.model != "lenet",
        device=given.device,
        threads=given.threads,
        data_dir=given.data_dir,
    )
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in given.methods}
    cost = seconds_an_epoch({name: replace(base, optimizer=METHODS[name]) for name in given.methods})
    for seed in given.seeds:  # methods take turns, so that a machine that slows down slows all
        for name in given.methods:
            epochs = max(2, round(given.seconds / cost[name]))
            done = run(replace(base, optimizer=METHODS[name], seed=seed), epochs)
            runs[name].append(done)
            last = done["rows"][-1]
            print(f"seed {seed} {name}: {done['epochs']} epochs, {100 * last['test_accuracy']:.2f} %", file=sys.stderr)
    best = [min(row["test_loss"] for row in r["rows"]) for seeds in runs.values() for r in seeds]
    target = max(best) if given.target is None else given.target
    table = summary(runs, target)
    show(table, target)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": describe(given.threads), "config": base.as_dict(), "target": target}
        record["config"].pop("data_dir")
        partial = given.out.with_name(f".{given.out.name}.partial")
        partial.write_text(json.dumps({**record, "table": table, "runs": runs}, indent=1), encoding="utf-8")
        partial.replace(given.out)
        title = f"Test accuracy, %: {given.data}, {given.model}"
        drawn = Drawn(given.out.stem, title, "", "", lambda canvas: draw(canvas, runs, title))
        for path in save_files(drawn, list(runs), given.out.parent):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
