"""What the studies of "Investigations on SAM" that train networks share: settings, runs, tables, small remarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.store.statistics import interval
from fenland.lab.study.trained import lossy

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.plots import Line
    from fenland.lab.store.records import Records
    from fenland.lab.study.base import Lab, Tables

REPORT = "Investigations on Sharpness-Aware Minimization, Wong, Yao, Huang"
# The share that the base code takes from the true class and gives to the other nine, as torch counts it: over all ten.
SMOOTHING = 1 / 9
# Epochs. Published runs have 200; below half of them the accuracy still rises, and faster methods look better ones.
ENOUGH = 100
PUBLISHED_DATA = "cifar10"
# A network counts as failed where it diverged or its accuracy is at most so many times that of guessing.
FAILED = 1.5

CHOICES = (
    "The report follows davda54/sam where it says nothing. From there: batches of 128, label smoothing that leaves 0.9 "
    "to the true class, crop, flip and cutout of 16 pixels (there on every second image, here on every one). lr 0.1, "
    "the step schedule, momentum 0.9 and weight decay 5e-4 are the report's own.",
    "Preset quick: small networks on scikit-learn's digits, batches of 64, nothing augmented. It shows that the "
    "comparison runs; what the report says about CIFAR-10 it cannot decide.",
    "Numbers are those of the last epoch, never of the best one on the test set.",
)
KEPT = (
    "run", "model", "optimizer", "options", "rho", "seed", "status", "test_accuracy", "test_loss", "train_accuracy",
    "train_loss", "parameters", "chance",
)  # fmt: skip
BY_EPOCH = ("epoch", "lr", "test_accuracy", "test_loss", "train_eval_loss", "grad_norm", "radius")


@dataclass(frozen=True)
class Training:
    """How every network is trained.

    Attributes:
        data: that the networks are trained on.
        epochs: of training.
        lr: learning rate at the start.
        schedule: of the learning rate.
        batch_size: examples a step.
        momentum: of the base.
        weight_decay: of the base.
        label_smoothing: of the training loss, as torch counts it.
        augment: random crop and flip.
        cutout: pixels of the blanked square, 0 for none.
        limit: train examples; None for all.
        seeds: of the training.
        device: cpu, cuda or mps.
    """

    data: str = "digits"
    epochs: int = 20
    lr: float = 0.1
    schedule: str = "step"
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = SMOOTHING
    augment: bool = False
    cutout: int = 0
    limit: int | None = None
    seeds: tuple[int, ...] = (0, 10, 42)
    device: str = "cpu"

    @property
    def decides(self) -> bool:
        """Whether runs are long enough, and on the right images, for their accuracy to speak about the report's."""
        return self.data == PUBLISHED_DATA and self.limit is None and self.epochs >= ENOUGH

    def only_if_decided(self, answer: bool | None) -> bool | None:
        """The answer to a claim about the published scale; None at any other."""
        return answer if self.decides else None

    def why(self) -> str:
        """Why a claim about the published scale stays open; empty at that scale."""
        if self.decides:
            return ""
        return (
            f"Not decided: {self.epochs} epochs on {self._images()} say nothing certain about 200 epochs on CIFAR-10; "
            "a short training ranks methods by their speed."
        )

    def here(self) -> str:
        """What the numbers are about."""
        return f"{self.data}{f' ({self.limit} images)' if self.limit else ''}, {self.epochs} epochs"

    def _images(self) -> str:
        return f"{self.limit} images of {self.data}" if self.limit else self.data

    def one(
        self, lab: Lab, model: str, optimizer: str, rho: float | None, seed: int, options: Sequence[str] = ()
    ) -> RunConfig:
        """One run."""
        from fenland.lab.config import RunConfig

        return RunConfig(
            self.data, model, optimizer, seed=seed, rho=rho, lr=self.lr, momentum=self.momentum,
            weight_decay=self.weight_decay, batch_size=self.batch_size, epochs=self.epochs, schedule=self.schedule,
            limit=self.limit, augment=self.augment, cutout=self.cutout, label_smoothing=self.label_smoothing,
            device=self.device, data_dir=lab.data_dir(self.data), options=tuple(options),
        )  # fmt: skip


# The published scale, without the network.
PAPER: dict[str, Any] = {
    "data": PUBLISHED_DATA, "epochs": 200, "batch_size": 128, "augment": True, "cutout": 16, "device": "cuda",
}  # fmt: skip


def at_least_two(name: str, values: Sequence[Any]) -> None:
    """Refuse fewer.

    Raises:
        BadInput: naming the field.
    """
    if len(set(values)) < 2:
        raise BadInput(name, values, "give at least two values to compare")


def train(lab: Lab, runs: Sequence[RunConfig]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a run (``KEPT``), and one row a run and epoch (``BY_EPOCH`` and what tells the runs apart).

    A diverged network is one that answers nothing: it counts as guessing, so that its method does not profit from it.
    """
    records = lab.train(runs)
    results = records.results.assign(chance=_chance(runs[0]), options=records.results["options"].map(" ".join))
    accuracy = results["test_accuracy"].astype(float)
    results["test_accuracy"] = accuracy.where(results["status"] == "finished", results["chance"])
    return results[list(KEPT)], _by_epoch(records, results)


def _by_epoch(records: Records, results: pd.DataFrame) -> pd.DataFrame:
    about = results[["run", "model", "options", "rho", "status"]]
    return records.metrics[["run", "optimizer", "seed", *BY_EPOCH]].merge(about, on="run")


def _chance(run: RunConfig) -> float:
    """The accuracy of guessing."""
    from fenland.lab import data

    return 1.0 / len(data.load(run).classes)


def failed(runs: pd.DataFrame) -> pd.Series:
    """Which of the runs failed: diverged, or no better than guessing."""
    guessing = runs["test_accuracy"].astype(float) <= FAILED * runs["chance"].astype(float)
    return (runs["status"] != "finished") | guessing


def diverged(runs: pd.DataFrame) -> str:
    """A sentence on runs that diverged; empty where none did."""
    count = int((runs["status"] != "finished").sum())
    return f"{count} of {len(runs)} runs diverged; their accuracy counts as that of guessing." if count else ""


def remarks(tables: Tables, *sentences: str) -> str:
    """Sentences, and what must be said of the data and of diverged runs."""
    return " ".join(part for part in (*sentences, lossy(tables), diverged(tables["runs"])) if part)


def curve(label: str, runs: pd.DataFrame, column: str, unit: float = 1.0) -> Line:
    """Mean and 95 % band over seeds by epoch, of an accuracy within 0 and 100 %; a seed counts as far as it came."""
    from fenland.lab.figures.plots import Line

    found = {int(str(epoch)): interval(unit * rows[column].astype(float)) for epoch, rows in runs.groupby("epoch")}
    kept = {epoch: each for epoch, each in found.items() if each.n}
    mean, low, high = ([getattr(each, name) for each in kept.values()] for name in ("mean", "low", "high"))
    if column == "test_accuracy":
        low, high = [max(0.0, x) for x in low], [min(unit, x) for x in high]
    return Line(label, list(kept), mean, low, high)


def spoken(lines: Iterable[Line], digits: int = 3) -> str:
    """The last points of lines in words, for those who cannot see them."""
    return "; ".join(f"{line.label} {line.y[-1]:.{digits}g}" for line in lines if len(line.y))
