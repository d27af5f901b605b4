"""Momentum and batch size: escape time from a saddle, and the accuracy of a network, over one grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, cast

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import Line, Panel
from fenland.lab.replicas.escapes import escapes, median, predicted
from fenland.lab.studies.momentum_batch_claims import NAMES, claims
from fenland.lab.studies.momentum_batch_training import (
    EFFECTIVE,
    FULL,
    READINGS,
    SAME,
    SMALL,
    Trained,
    accuracies,
    train,
)  # fmt: skip
from fenland.lab.study import Plot, Study
from fenland.lab.study.grid import at_least_two
from fenland.lab.study.parts import Lab, Measured, Piece, Source, Tables
from fenland.lab.study.words import lossy


@dataclass(frozen=True)
class Config(Trained):
    """What is run."""

    strength: float = 1.0  # m of the saddle, eigenvalues +m and -m (loss / w^2)
    std: float = 1.0  # of one sample's gradient noise (loss / w)
    lr: float = 0.02  # of the steps at the saddle
    rho: float = 0.5  # of the unnormalised ascent, rho * strength < 1
    radius: float = 0.1  # of the normalised ascent
    out: float = 1.0  # |w| along the descending direction that counts as escaped
    paths: int = 200  # from the saddle, a cell of the grid
    steps: int = 800  # after which a path counts as not escaped
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9)  # at the saddle
    batches: tuple[int, ...] = (1, 4, 16, 64)  # at the saddle
    seed: int = 0  # of the noise at the saddle

    def __post_init__(self) -> None:
        if not 0 < self.rho * self.strength < 1:
            raise BadInput("rho", self.rho, "give 0 < rho * strength < 1: beyond, the saddle holds SAM at any momentum")
        for name in ("momenta", "train_momenta", "batches", "train_batches"):
            at_least_two(name, getattr(self, name))


def settings(config: Config, method: str, reading: str, momentum: float) -> dict[str, Any]:
    """Of the paths of a method from the saddle."""
    rho = 0.0 if method == "SGD" else config.rho if method in ("USAM", "SSAM-U") else config.radius
    lr = config.lr * (1.0 if reading == SAME else 1 - momentum)
    return {
        "rho": rho, "lr": lr, "momentum": momentum, "strength": config.strength, "std": config.std,
        "radius": config.out, "paths": config.paths, "steps": config.steps, "seed": config.seed,
    }  # fmt: skip


def measure(config: Config, lab: Lab) -> Tables:
    """Escape times of every path, their medians beside theory, and one row a trained run."""
    jobs = list(product(NAMES, READINGS, config.momenta))
    plans = [{"method": job[0], "batches": config.batches, **settings(config, *job)} for job in jobs]
    pieces = [Piece("escapes", plan, partial(escapes, **plan)) for plan in plans]
    parts = [
        part.assign(method=method, reading=reading, momentum=momentum)
        for (method, reading, momentum), part in zip(jobs, lab.keep_all(pieces, "escapes"), strict=True)
    ]
    steps = pd.concat(parts, ignore_index=True)
    return {"escapes": steps, "medians": medians(steps, config), **train(config, lab)}


def medians(steps: pd.DataFrame, config: Config) -> pd.DataFrame:
    """One row a cell: ``method, reading, momentum, batch, median, low, high, escaped, theory``."""
    rows, cell = [], ["method", "reading", "momentum", "batch"]
    for key, part in steps.groupby(cell, sort=False):
        method, reading, momentum, batch = cast("tuple[str, str, float, int]", key)
        s = settings(config, method, reading, momentum)
        theory = predicted(method, s["rho"], s["lr"], momentum, batch, config.strength, config.std, config.out)
        rows.append([*key, *median(part["step"]), part["step"].notna().mean(), theory])
    return pd.DataFrame(rows, columns=[*cell, "median", "low", "high", "escaped", "theory"])


def escape_by_batch(reading: str) -> Any:
    """Median steps by batch size, a panel a momentum; points on the closed form where there is one."""

    def panels(measured: Measured) -> list[Panel]:
        rows, found = measured["medians"], []
        for momentum, part in rows[rows["reading"] == reading].groupby("momentum"):
            lines = []
            for method, row in part.groupby("method", sort=False):
                label, known = NAMES[str(method)], row["theory"].notna().all()
                lines += [Line(label, row["batch"], row["theory"], kind="theory")] if known else []
                kind: Any = "dots" if known else "joined"
                lines.append(Line(label, row["batch"], row["median"], row["low"], row["high"], kind))
            found.append(Panel(lines, "batch size B", f"momentum {momentum:g}", log_x=True))
        return found

    return panels


ESCAPE_WORDS = (
    "Points are medians over paths with 95 % intervals; the thin lines of SGD and unnormalised SAM are the closed form "
    "with momentum. Every path starts on the saddle."
)


def by_batch(name: str, title: str, reading: str) -> Plot:
    """A figure of `escape_by_batch`."""
    return Plot(name, f"Median steps to escape, {title}", escape_by_batch(reading), ESCAPE_WORDS, tuple(NAMES.values()))


STUDY = Study(
    name="momentum-batch",
    title="Momentum and batch size against SAM's slow escape",
    source=Source("Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"),
    question="Do momentum and small batches speed SAM's escape from a saddle, and does a network trained with them "
    "generalise better?",
    config=Config,
    paper={
        "paths": 2000, "steps": 10_000, "momenta": (0.0, 0.3, 0.6, 0.9, 0.95), "batches": (1, 4, 16, 64, 256), **FULL,
    },
    two_cores=SMALL,
    runs=measure,
    trains=lambda config, lab: [run for grid in config.grids() for run in grid.runs(config, lab)],
    claims=claims,
    figures=[
        by_batch("escape", "same lr", SAME), by_batch("effective", "same lr / (1 − momentum)", EFFECTIVE), accuracies,
    ],
    choices=(
        "Every path starts exactly on the saddle. The noise is normal with standard deviation std / sqrt(B), and both "
        "passes have the same draw. A path has escaped when |y| >= out.",
        "Momentum at the same lr also multiplies the step by 1/(1 - momentum). The other reading, the same "
        "lr/(1 - momentum), is run beside it, at the saddle and, in preset quick, in training.",
        "Preset paper trains ResNet-18 on CIFAR-10. Without batch norm and augmentation it varies radius, momentum and "
        "batch; with both it varies momentum. Learning rates, schedule, weight decay and epochs are not known and are "
        "chosen here. Preset two-cores has the first grid on a LeNet, which has no batch norm either.",
        "Preset quick trains an MLP on scikit-learn's digits with a constant learning rate, no weight decay and equal "
        "epochs, so small batches take more steps. It says what these settings do on a small task, not on the paper's "
        "benchmarks.",
    ),
    beside=(lossy,),
)  # fmt: skip
