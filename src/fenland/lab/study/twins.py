"""Two runs in lockstep on train sets that differ in one example, and what theory allows them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fenland.lab import data
from fenland.lab.models import build_model
from fenland.lab.study.network import closure
from fenland.lab.training.here import exactly
from fenland.lab.training.optimizers import OPTIMIZERS, build_optimizer
from fenland.lab.training.probe import loss_of

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

LINEAR = "linear"  # a softmax regression
NEIGHBOUR = 0  # which one of the train set's neighbours; the train set itself differs from pair to pair
COLUMNS = ["epoch", "status", "distance", "norm", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]


def follow(run: RunConfig, test_examples: int | None) -> pd.DataFrame:
    """Train both members of a pair; one row an epoch, the start being epoch 0.

    Args:
        run: on the unchanged set; constant learning rate.
        test_examples: for the gap, a fixed stratified choice; None for all.

    Returns:
        ``epoch, status, distance, norm, train_loss, test_loss, train_accuracy, test_accuracy``: |w - w'| and
        sqrt(|w|^2 + |w'|^2), and evaluations of the run on the unchanged set. It ends early where a weight is not
        finite, the last row's status then being "diverged".
    """
    rows = []
    with exactly(run.threads):
        ours, theirs = _Member(run), _Member(neighbour(run))
        for epoch in range(run.epochs + 1):
            if epoch:
                for batch, other in zip(ours.batches.epoch(epoch), theirs.batches.epoch(epoch), strict=True):
                    ours.step(*batch)
                    theirs.step(*other)
            first, second = ours.weights(), theirs.weights()
            distance, norm = (first - second).norm().item(), torch.cat([first, second]).norm().item()
            if not (math.isfinite(distance) and math.isfinite(norm)):
                rows.append({"epoch": epoch, "status": "diverged"})
                break
            row = {"epoch": epoch, "status": "finished", "distance": distance, "norm": norm}
            rows.append(row | ours.evaluate("train", None) | ours.evaluate("test", test_examples))
    return pd.DataFrame(rows, columns=COLUMNS)


def neighbour(run: RunConfig) -> RunConfig:
    """The other member of the pair."""
    return dataclasses.replace(run, replace=NEIGHBOUR)


def bounds(run: RunConfig) -> pd.DataFrame:
    """``epoch, bound, why``: what the theory allows a softmax regression, or why it says nothing.

    For inputs x with a constant appended, R the longest of both sets: the loss's gradient is (p - y) x^T, so
    L = sqrt(2) * R, and its Hessian (diag(p) - p p^T) x x^T, so beta = R^2 / 2 and mu = 0, everywhere. Each epoch
    shows every example once, at an even chance for each place, which in expectation is the draw that the bound assumes.
    """
    from fenland.theory import Smoothness, distance_bound

    name = OPTIMIZERS[run.optimizer].title
    first, second = (_Member(member).batches for member in (run, neighbour(run)))
    longest = max(
        float(images.flatten(1).double().square().sum(1).max())
        for batches in (first, second)
        for images, _ in batches.evaluation("train")
    )
    radius = math.sqrt(longest + 1)
    known = Smoothness(lipschitz=math.sqrt(2) * radius, smoothness=radius**2 / 2, convexity=0.0)
    samples = sum(len(labels) for _, labels in first.evaluation("train"))
    rows = []
    for epoch in range(1, run.epochs + 1):
        bound, why = math.nan, ""
        try:
            steps = epoch * first.steps
            bound = distance_bound(run.lr, steps, samples, run.rho or 0.0, name, known, run.batch_size)
        except ValueError as error:
            why = str(error)
        rows.append({"epoch": epoch, "bound": bound, "why": why, "radius": radius})
    return pd.DataFrame(rows)


class _Member:
    """One of the two runs."""

    def __init__(self, run: RunConfig) -> None:
        images = data.load(run)
        device = torch.device(run.device)
        self.batches = data.Batches(images, device, run.batch_size, run.seed)
        torch.manual_seed(run.seed)
        self.model = build(run.model, images.shape, len(images.classes)).to(device)
        self.optimizer = build_optimizer(run, self.model, run.epochs * self.batches.steps)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step of the optimizer."""
        stepper: Any = self.optimizer  # torch types its closure as one that returns a float
        stepper.step(closure(self.optimizer, self.model, loss_of, (images, labels)))

    def weights(self) -> Tensor:
        """All of them in one row, float64."""
        return torch.cat([weight.detach().double().flatten() for weight in self.model.parameters()])

    @torch.no_grad()
    def evaluate(self, split: str, limit: int | None) -> dict[str, float]:
        """Mean loss and share of right answers."""
        self.model.eval()
        loss, right, count = 0.0, 0, 0
        for images, labels in self.batches.evaluation(split, limit):
            logits = self.model(images)
            loss += cross_entropy(logits, labels, reduction="sum").item()
            right, count = right + int((logits.argmax(1) == labels).sum()), count + len(labels)
        self.model.train()
        return {f"{split}_loss": loss / count, f"{split}_accuracy": right / count}


def build(model: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network of the lab, or a softmax regression."""
    if model == LINEAR:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
    return build_model(model, shape, classes)
