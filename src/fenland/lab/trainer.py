"""Train one configuration to the end, on Lightning Fabric."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.fabric
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.metrics import EpochRecord, StepMeans
from fenland.lab.models import build_model
from fenland.lab.optimizers import build_optimizer
from fenland.lab.schedules import SCHEDULES

# Train examples evaluated after each epoch but the last; their loss has a standard error of a hundredth of its spread.
PROBE = 10_000
# An optimizer without a record gets its gradient norm measured at every eighth step, to keep its time its own.
NORM_EVERY = 8

OnEpoch = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Args:
        status: ``finished``, or ``diverged`` when the loss became non-finite or every step of an epoch was skipped.
        records: one per epoch.
        parameters: trainable numbers of the model.
    """

    status: str
    records: tuple[EpochRecord, ...]
    parameters: int

    def summary(self) -> dict[str, Any]:
        """The last epoch's numbers and the two generalisation gaps, as ``result.json`` holds them.

        ``loss_gap`` is test loss minus train loss, ``accuracy_gap`` train accuracy minus test accuracy; both
        are taken in evaluation mode on the whole sets, at the last weights (never at the best epoch on the test set).
        """
        last = self.records[-1]
        return {
            "status": self.status,
            "epochs": last.epoch,
            "train_loss": last.train_eval_loss,
            "train_accuracy": last.train_accuracy,
            "test_loss": last.test_loss,
            "test_accuracy": last.test_accuracy,
            "loss_gap": last.test_loss - last.train_eval_loss,
            "accuracy_gap": last.train_accuracy - last.test_accuracy,
            "seconds": last.seconds,
            "gradient_evaluations": last.gradient_evaluations,
            "parameters": self.parameters,
        }


def train(config: RunConfig, on_epoch: OnEpoch | None = None) -> RunResult:
    """Train from scratch; the same configuration on the same machine gives the same numbers.

    Args:
        config: the run.
        on_epoch: called with each epoch's record.

    Raises:
        BadInput: the data, the model or the batch size does not fit.
    """
    # The caller's random state is left as it was; deterministic kernels make a GPU repeat itself too.
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            torch.manual_seed(config.seed)
            return _Run(config).train(on_epoch)
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The live objects of one training run."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.fabric = lightning.fabric.Fabric(
            accelerator=config.device,
            devices=1,
            precision=config.precision,  # type: ignore[arg-type]
        )
        images = data.load(config)
        dtype = torch.float64 if config.precision == "64-true" else torch.float32
        self.batches = data.Batches(
            images, self.fabric.device, config.batch_size, config.seed, augment=config.augment, dtype=dtype
        )
        model = build_model(config.model, images.shape, len(images.classes)).to(self.fabric.device)
        self.parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        self.optimizer = build_optimizer(config, model)
        self.weights = list(model.parameters())
        self.model, self.stepper = self.fabric.setup(model, self.optimizer)
        self.evaluations = 0
        self.seconds = 0.0

    def train(self, on_epoch: OnEpoch | None) -> RunResult:
        self._warm_up()
        records: list[EpochRecord] = []
        status = "finished"
        for epoch in range(1, self.config.epochs + 1):
            records.append(self._epoch(epoch))
            if on_epoch is not None:
                on_epoch(records[-1])
            if diverged(records[-1]):
                status = "diverged"
                break
        return RunResult(status, tuple(records), self.parameters)

    def _warm_up(self) -> None:
        """Pay for lazy imports and kernel choices before the clock starts, on a copy that is thrown away."""
        with torch.random.fork_rng():
            model = copy.deepcopy(self.model.module)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            images, labels = next(self.batches.epoch(0))
            cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    def _epoch(self, epoch: int) -> EpochRecord:
        lr = self.config.lr * SCHEDULES[self.config.schedule]((epoch - 1) / self.config.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        start = self._clock()
        means = self._steps(epoch)
        spent = self._clock() - start
        self.seconds += spent
        last = epoch == self.config.epochs
        train_loss, train_accuracy, examples = self._evaluate("train", None if last else PROBE)
        test_loss, test_accuracy, _ = self._evaluate("test", None)
        return EpochRecord(
            epoch=epoch,
            lr=lr,
            train_eval_loss=train_loss,
            train_accuracy=train_accuracy,
            train_examples=examples,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            gradient_evaluations=self.evaluations,
            images_per_second=self.batches.steps * self.batches.batch_size / spent,
            seconds=self.seconds,
            **means,
        )

    def _steps(self, epoch: int) -> dict[str, float]:
        means = StepMeans(self.fabric.device)
        for number, (images, labels) in enumerate(self.batches.epoch(epoch)):
            loss = self.stepper.step(self._closure(images, labels))
            record = getattr(self.optimizer, "last", None)
            if record is None and number % NORM_EVERY == 0:
                record = _GradNorm(self.weights)
            means.add(loss, record)
        return means.means()

    def _closure(self, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            self.evaluations += 1
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(images), labels)
            self.fabric.backward(loss)
            return loss

        return closure

    @torch.no_grad()
    def _evaluate(self, split: str, limit: int | None) -> tuple[float, float, int]:
        """Mean loss, share of right answers and number of examples, in evaluation mode."""
        self.model.eval()
        count = 0
        sums = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)
        for images, labels in self.batches.evaluation(split, limit):
            logits = self.model(images)
            loss = cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([loss.double(), (logits.argmax(1) == labels).sum().double()])
            count += len(labels)
        self.model.train()
        loss_sum, right = sums.tolist()
        return loss_sum / count, right / count, count

    def _clock(self) -> float:
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.fabric.device)
        return time.perf_counter()


class _GradNorm:
    """A step's record for an optimizer that keeps none: the gradient it has just used."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.grad_norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])


def diverged(record: EpochRecord) -> bool:
    """The loss is no number any more, or no step of the epoch could be taken."""
    losses = (record.train_loss, record.train_eval_loss)
    return not all(map(math.isfinite, losses)) or record.skipped == 1.0
