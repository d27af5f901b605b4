"""What a run leaves, and when it counts as diverged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fenland.lab.training.metrics import EpochRecord


@dataclass(frozen=True)
class RunResult:
    """What a run leaves.

    Args:
        status: ``finished``, or ``diverged`` when the loss became non-finite or every step of an epoch was skipped.
        records: one per epoch, the last one of a diverged run cut short.
        parameters: trainable numbers of the model.
        diverged_step: the step, from 1 over the whole run, at whose weights the loss was no number or from which on
            every step was skipped; None for a finished run. The epoch is that of the last record.
        noisy_labels: how many train labels were replaced by another class; None where no noise was asked for.
        weights: the model's state at the end, on the CPU, where the configuration asks for it.
    """

    status: str
    records: tuple[EpochRecord, ...]
    parameters: int
    diverged_step: int | None = None
    noisy_labels: int | None = None
    weights: dict[str, Tensor] | None = None

    def summary(self) -> dict[str, Any]:
        """The last epoch's numbers and the two generalisation gaps, as ``result.json`` holds them.

        ``loss_gap`` is test loss minus train loss, ``accuracy_gap`` train accuracy minus test accuracy; both
        are taken in evaluation mode on the whole sets, at the last weights (never at the best epoch on the test set).
        """
        last = self.records[-1]
        noise = {} if self.noisy_labels is None else {"noisy_labels": self.noisy_labels}
        return {
            "status": self.status,
            "epochs": last.epoch,
            "train_loss": last.train_eval_loss,
            "train_accuracy": last.train_accuracy,
            "test_loss": last.test_loss,
            "test_accuracy": last.test_accuracy,
            "loss_gap": last.test_loss - last.train_eval_loss,
            "accuracy_gap": last.train_accuracy - last.test_accuracy,
            "test_ece": last.test_ece,
            "seconds": last.seconds,
            "process_seconds": last.process_seconds,
            "gradient_evaluations": last.gradient_evaluations,
            "parameters": self.parameters,
            "diverged_step": self.diverged_step,
            **noise,
        }


def diverged(record: EpochRecord) -> bool:
    """Whether the loss is no finite number any more, or no step of the epoch could be taken."""
    losses = (record.train_loss, record.train_eval_loss if record.train_examples else 0.0)
    return not all(map(math.isfinite, losses)) or record.skipped == 1.0
