"""Momentum and batch size: escape time from a saddle, and test accuracy of a small network, over one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, cast

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.studies.momentum_batch_escape import escapes, median, predicted
from fenland.lab.studies.momentum_batch_verdicts import judge
from fenland.lab.study.base import Lab, Study, Tables, Verdict

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

METHODS = ("SGD", "USAM", "SSAM-U", "SAM", "SSAM")
TRAINED = ("sgd", "sam", "ssam")
READINGS = ("same lr", "same lr/(1 - momentum)")


@dataclass(frozen=True)
class MomentumBatchConfig:
    """What is run.

    Attributes:
        strength: m of the saddle, eigenvalues +m and -m (loss / w^2).
        std: of one sample's gradient noise (loss / w).
        lr: of the steps at the saddle.
        rho: of the unnormalised ascent, rho * strength < 1.
        radius: of the normalised ascent.
        out: |w| along the descending direction that counts as escaped.
        paths: from the saddle, a cell of the grid.
        steps: after which a path counts as not escaped.
        momenta: of both parts.
        batches: at the saddle.
        data: that the network is trained on.
        model: the network.
        train_rho: radius of SAM and SSAM in training.
        train_lr: learning rate in training, constant; in the other reading that of the largest momentum.
        train_momenta: of the trained grid.
        train_batches: of the trained grid.
        epochs: of training.
        seeds: of training.
        seed: of the noise at the saddle.
    """

    strength: float = 1.0
    std: float = 1.0
    lr: float = 0.02
    rho: float = 0.5
    radius: float = 0.1
    out: float = 1.0
    paths: int = 200
    steps: int = 800
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9)
    batches: tuple[int, ...] = (1, 4, 16, 64)
    data: str = "digits"
    model: str = "mlp"
    train_rho: float = 0.05
    train_lr: float = 0.02
    train_momenta: tuple[float, ...] = (0.0, 0.9)
    train_batches: tuple[int, ...] = (16, 128)
    epochs: int = 10
    seeds: tuple[int, ...] = (0, 1, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rho * self.strength < 1:
            raise BadInput("rho", self.rho, "give 0 < rho * strength < 1: beyond, the saddle holds SAM at any momentum")
        for name in ("momenta", "train_momenta", "batches", "train_batches"):
            if len(set(getattr(self, name))) < 2:
                raise BadInput(name, getattr(self, name), "give at least two values to compare")


class MomentumBatch(Study[MomentumBatchConfig]):
    """The study `momentum-batch`."""

    name: ClassVar[str] = "momentum-batch"
    title: ClassVar[str] = "Momentum and batch size against SAM's slow escape"
    source: ClassVar[str] = "Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"
    question: ClassVar[str] = (
        "Do momentum and small batches speed SAM's escape from a saddle, and does a small network trained with them "
        "generalise better?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "Full text not at hand. At the saddle every path starts on it, exactly; noise is normal with standard "
        "deviation std / sqrt(B), one draw in both passes; escape is |y| >= out.",
        "Momentum at the same lr also multiplies the step by 1/(1 - momentum). The other reading, the same "
        "lr/(1 - momentum), is run beside it, at the saddle and in training.",
        "Training: an MLP on scikit-learn's digits, constant learning rate, no weight decay, equal epochs: small "
        "batches take more steps. It says what these settings do on a small task, not on the paper's benchmarks.",
    )
    presets: Mapping[str, MomentumBatchConfig] = {
        "quick": MomentumBatchConfig(),
        "paper": MomentumBatchConfig(
            paths=2000, steps=10_000, momenta=(0.0, 0.3, 0.6, 0.9, 0.95), batches=(1, 4, 16, 64, 256), epochs=40,
            train_momenta=(0.0, 0.5, 0.9), train_batches=(16, 64, 256), seeds=tuple(range(10)),
        ),
    }  # fmt: skip

    def run(self, config: MomentumBatchConfig, lab: Lab) -> Tables:
        """Escape times of every path, their medians beside theory, and one row a trained run."""
        jobs = list(product(METHODS, READINGS, config.momenta))
        parts = []
        for method, reading, momentum in lab.track(jobs, len(jobs), "escapes"):
            settings = _settings(config, method, reading, momentum)
            part = lab.keep(
                "escapes",
                {"method": method, "batches": list(config.batches), **settings},
                lambda m=method, s=settings: escapes(m, batches=config.batches, **s),  # type: ignore[misc]
            )
            parts.append(part.assign(method=method, reading=reading, momentum=momentum))
        steps = pd.concat(parts, ignore_index=True)
        records = lab.train([run for reading in READINGS for run in self.runs(config, lab, reading)])
        return {"escapes": steps, "medians": _medians(steps, config), "trained": _trained(records.results, config)}

    def runs(self, config: MomentumBatchConfig, lab: Lab, reading: str) -> list[RunConfig]:
        """What is trained in one reading; the largest momentum is the same in both."""
        from fenland.lab.config import RunConfig

        return [
            RunConfig(
                config.data, config.model, optimizer, seed=seed, rho=None if optimizer == "sgd" else config.train_rho,
                lr=_train_lr(config, momentum, reading), momentum=momentum, weight_decay=0.0,
                batch_size=batch, epochs=config.epochs, schedule="constant", data_dir=lab.data_dir(config.data),
            )
            for optimizer, momentum, batch, seed in product(
                TRAINED, config.train_momenta, config.train_batches, config.seeds
            )
        ]  # fmt: skip

    def figures(self, config: MomentumBatchConfig, tables: Tables) -> list[Drawn]:
        """Escape time over the grid, and accuracy."""
        from fenland.lab.studies.momentum_batch_figures import draw

        return draw(tables)

    def verdicts(self, config: MomentumBatchConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        return judge(tables)


def _settings(config: MomentumBatchConfig, method: str, reading: str, momentum: float) -> dict[str, float | int]:
    rho = 0.0 if method == "SGD" else config.rho if method in ("USAM", "SSAM-U") else config.radius
    lr = config.lr * (1.0 if reading == READINGS[0] else 1 - momentum)
    return {
        "rho": rho, "lr": lr, "momentum": momentum, "strength": config.strength, "std": config.std,
        "radius": config.out, "paths": config.paths, "steps": config.steps, "seed": config.seed,
    }  # fmt: skip


def _train_lr(config: MomentumBatchConfig, momentum: float, reading: str) -> float:
    top = max(config.train_momenta)
    return config.train_lr * (1.0 if reading == READINGS[0] else round((1 - momentum) / (1 - top), 9))


def _trained(results: pd.DataFrame, config: MomentumBatchConfig) -> pd.DataFrame:
    """One row a run and reading."""
    wanted = ["optimizer", "momentum", "batch_size", "lr", "seed", "status", "test_accuracy"]
    parts = []
    for reading in READINGS:
        lrs = results["momentum"].map(lambda momentum, reading=reading: _train_lr(config, momentum, reading))
        parts.append(results.loc[results["lr"] == lrs, wanted].assign(reading=reading))
    return pd.concat(parts, ignore_index=True)


def _medians(steps: pd.DataFrame, config: MomentumBatchConfig) -> pd.DataFrame:
    """One row a cell: ``method, reading, momentum, batch, median, low, high, escaped, theory``."""
    rows = []
    cell = ["method", "reading", "momentum", "batch"]
    for key, part in steps.groupby(cell, sort=False):
        method, reading, momentum, batch = cast("tuple[str, str, float, int]", key)
        s = _settings(config, method, reading, momentum)
        theory = predicted(method, s["rho"], s["lr"], momentum, batch, config.strength, config.std, config.out)
        escaped = part["step"].notna().mean()
        rows.append([method, reading, momentum, batch, *median(part["step"]), escaped, theory])
    return pd.DataFrame(rows, columns=[*cell, "median", "low", "high", "escaped", "theory"])
