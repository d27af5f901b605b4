"""Measures when SAM pays and when not, at equal numbers of gradients: python docs/when_not.py (some minutes).

Writes docs/measured/when-not.json, from which `python docs/tables.py` makes the tables of docs/when-not.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fenland.lab.config import RunConfig
from fenland.lab.store.statistics import interval
from fenland.lab.training.trainer import train

FILE = Path(__file__).parent / "measured" / "when-not.json"
SEEDS = 5
EPOCHS = 12
COMMON: dict[str, Any] = {"data": "digits", "model": "mlp", "lr": 0.1, "batch_size": 64}
SGD: dict[str, Any] = {"optimizer": "sgd"}
SAM: dict[str, Any] = {"optimizer": "sam", "rho": 0.05}
SSAM: dict[str, Any] = {"optimizer": "ssam", "rho": 0.05}
# case -> rows: name and what differs from COMMON. SGD with twice the epochs costs what SAM costs.
CASES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "clean labels": (
        ("SGD, equal epochs", SGD),
        ("SGD, equal gradients", {**SGD, "epochs": 2 * EPOCHS}),
        ("SAM, rho 0.05", SAM),
        ("SSAM, rho 0.05", SSAM),
    ),
    "30 % of the labels wrong": tuple(
        (name, {**row, "label_noise": 0.3})
        for name, row in (
            ("SGD, equal epochs", SGD),
            ("SGD, equal gradients", {**SGD, "epochs": 2 * EPOCHS}),
            ("SAM, rho 0.05", SAM),
            ("SAM, rho 0.2", {**SAM, "rho": 0.2}),
            ("SSAM, rho 0.2", {**SSAM, "rho": 0.2}),
        )
    ),
    "too little training": (
        ("SGD, equal epochs", {**SGD, "epochs": 1}),
        ("SGD, equal gradients", {**SGD, "epochs": 2}),
        ("SAM, rho 0.05", {**SAM, "epochs": 1}),
        ("SSAM, rho 0.05", {**SSAM, "epochs": 1}),
    ),
    "a radius that is too large": (
        ("SAM, rho 0.05", SAM),
        ("SAM, rho 1", {**SAM, "rho": 1.0}),
        ("SAM, rho 3", {**SAM, "rho": 3.0}),
        ("SSAM, rho 3", {**SSAM, "rho": 3.0}),
    ),
}


def measure() -> dict[str, Any]:
    """Every case, all seeds."""
    done: dict[str, Any] = {}
    seen: dict[str, list[dict[str, Any]]] = {}
    for case, rows in CASES.items():
        done[case] = []
        for name, changes in rows:
            settings = {"epochs": EPOCHS, **COMMON, **changes}
            key = json.dumps(settings, sort_keys=True)
            if key not in seen:
                seen[key] = [train(RunConfig(**settings, seed=seed)).summary() for seed in range(SEEDS)]
            runs = seen[key]
            done[case].append({"name": name, "settings": settings, **_means(runs)})
            print(case, done[case][-1]["name"], done[case][-1]["test_accuracy"], flush=True)
    return {"seeds": SEEDS, "cases": done}


def _means(runs: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"gradients": runs[0]["gradient_evaluations"]}
    for column in ("test_accuracy", "test_loss"):
        found = interval([run[column] for run in runs])
        row[column] = {"mean": found.mean, "low": found.low, "high": found.high}
    return row


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    partial = FILE.with_suffix(".partial")
    partial.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    partial.replace(FILE)
