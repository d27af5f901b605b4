"""What the studies of "Investigations on SAM" share: the report, its training, what it leaves open, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fenland.lab.figures.plots import Mark
from fenland.lab.study import Measured, Quantity, Seeds, Source, Study, curves
from fenland.lab.study.grid import Training
from fenland.lab.study.study import runs_guessed
from fenland.lab.study.words import lossy

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from torch import Tensor

    from fenland.lab.config import RunConfig

REPORT = Source("Investigations on Sharpness-Aware Minimization, Wong, Yao, Huang")
# As its claims name it.
SHORT = Source("Investigations on SAM")
# The share that the base code takes from the true class and gives to the other nine, as torch counts it: over all ten.
SMOOTHING = 1 / 9
SHARE = 0.1  # what the smoothed labels of davda54/sam take from the true class
# Epochs. Published runs have 200; below half of them the accuracy still rises, and faster methods look better ones.
ENOUGH = 100
CHOICES = (
    "Where the report says nothing, it follows davda54/sam. From there come batches of 128, label smoothing that "
    "leaves 0.9 to the true class, crop, flip, and cutout of 16 pixels with probability 0.5. lr 0.1, the step "
    "schedule, momentum 0.9 and weight decay 5e-4 are the report's own.",
    "Preset quick trains small networks on scikit-learn's digits, in batches of 64, without augmentation. It shows "
    "that the comparison runs; it cannot decide what the report says about CIFAR-10.",
    "Numbers are those of the last epoch, never of the best one on the test set.",
)
WHICH = "The report says WideResNet and does not say which. Preset paper takes WRN-16-8, as davda54/sam does."
# The published scale, without the network.
PAPER: dict[str, Any] = {
    "data": "cifar10", "epochs": 200, "batch_size": 128, "augment": True, "cutout": 16,
    "cutout_share": 0.5, "device": "cuda",
}  # fmt: skip
accuracy = Quantity("test_accuracy", "Test accuracy, %", unit="points", scale=100, form=".2f")
loss = Quantity("test_loss", "Test loss (cross-entropy)", form=".4f")


@dataclass(frozen=True)
class Investigation(Training):
    """How every network is trained."""

    label_smoothing: float = SMOOTHING
    seeds: tuple[int, ...] = (0, 10, 42)

    def why(self) -> str:
        """Why a claim about the published scale stays open; empty at that scale."""
        if self.data == PAPER["data"] and self.limit is None and self.epochs >= ENOUGH:
            return ""
        images = f"{self.limit} images of {self.data}" if self.limit else self.data
        return (
            f"Not decided: {self.epochs} epochs on {images} say nothing certain about 200 epochs on CIFAR-10; "
            "a short training ranks methods by their speed."
        )


def about(measured: Measured) -> str:
    """What the numbers are about, for claims that any scale decides."""
    return f"About {measured.config.here()}."


def setting(measured: Measured) -> str:
    """What the figures show."""
    return f"{measured.config.model}, {measured.config.here()}"


def ends_and_curves(
    by: str, quantities: Sequence[Quantity], title: str, log: Sequence[str], caption: Callable[[Measured], str],
    label: Callable[[Any], str] = str, marks: Callable[[Measured], Sequence[Mark]] = lambda measured: (),
) -> list[Any]:  # fmt: skip
    """Accuracies at the end seed by seed, and quantities by epoch, a row and a line a case."""
    return [
        Seeds("final", accuracy, by, lambda m: f"{setting(m)}.", label, "Test accuracy at the end, %"),
        curves("curves", by, quantities, title=title, log=log, label=label, marks=marks, caption=caption),
    ]


def investigation(place: str, paper: Mapping[str, Any], choices: Sequence[str], **fields: Any) -> Study:
    """A study of the report: the rest of `Study` beside what all of them share."""
    return Study(
        source=REPORT.at(place), paper={**PAPER, **paper}, choices=(*choices, *CHOICES), beside=(lossy, runs_guessed),
        **fields,
    )  # fmt: skip


def smoothed_loss(run: RunConfig, weights: Path) -> pd.DataFrame:
    """One row ``loss``: the mean of `divergence` over the test set, in evaluation mode."""
    import pandas as pd
    import torch

    from fenland.lab.study.network import trained

    model, batches = trained(run, weights)
    total, count = 0.0, 0
    with torch.no_grad():
        for batch, labels in batches.evaluation("test"):
            total += float(divergence(model(batch), labels).double().sum())
            count += len(labels)
    return pd.DataFrame({"loss": [total / count]})


def divergence(logits: Tensor, labels: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the smoothed labels from the softmax, one number an example.

    Args:
        logits: (batch, classes).
        labels: (batch,), class numbers.

    The target is 1 - 0.1 on the true class and 0.1 / (classes - 1) on each other, as davda54/sam has it, so that 0 is
    reached at outputs that are as unsure as the target.
    """
    import torch

    classes = logits.shape[1]
    target = torch.full_like(logits, SHARE / (classes - 1))
    target.scatter_(1, labels[:, None], 1 - SHARE)
    return (target * (target.log() - logits.log_softmax(1))).sum(1)
