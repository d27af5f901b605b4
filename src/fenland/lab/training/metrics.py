"""What a run records: means over an epoch's steps, kept on the device until the epoch ends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Names in the step's record (``opt.last``) that the lab averages; skipped becomes the share of skipped steps.
FROM_RECORD = ("gamma", "sharpness", "grad_norm", "ascent_grad_norm", "cosine", "radius", "skipped")


class Seconds(NamedTuple):
    """A moment or a span."""

    wall: float = 0.0  # seconds on the wall
    process: float = 0.0  # seconds of CPU that this process has had

    def plus(self, other: Seconds) -> Seconds:
        """Both together."""
        return Seconds(self.wall + other.wall, self.process + other.process)

    def since(self, other: Seconds) -> Seconds:
        """The span from another moment to this one."""
        return Seconds(self.wall - other.wall, self.process - other.process)


NO_TIME = Seconds()


@dataclass(frozen=True)
class EpochRecord:
    """One row of ``metrics.parquet``; NaN where a quantity is not defined (an optimizer without ascent has no gamma) or
    was not measured (``evaluate_every``; ``train_examples`` is 0 then).
    """

    epoch: int  # from 1
    lr: float  # learning rate in this epoch
    train_loss: float  # mean over the steps, each at its own weights and in training mode
    train_eval_loss: float  # at the end of the epoch, in evaluation mode, on ``train_examples`` examples
    train_accuracy: float  # share of right answers, as ``train_eval_loss``
    train_examples: int  # size of the fixed choice of train examples for it; the last epoch takes all
    test_loss: float  # at the end of the epoch on the whole test set
    test_accuracy: float  # share of right answers on it
    gamma: float  # mean of ||g|| / ||h||, the factor that Stable SAM puts on the gradient of the ascent point; no unit
    sharpness: float  # mean loss at w + e minus loss at w
    grad_norm: float  # mean norm of the gradient at w
    ascent_grad_norm: float  # mean norm of the gradient at w + e
    cosine: float  # mean cosine of the two gradients
    radius: float  # mean norm of e, in the norm of the weights
    skipped: float  # share of steps skipped for a non-finite gradient
    gradient_evaluations: int  # forward-backward passes since the start
    images_per_second: float  # train examples per second in this epoch
    seconds: float  # training time since the start; evaluation is not in it
    # CPU time of the training process itself since the start, all threads together: what else runs on the machine does
    # not change it
    process_seconds: float = math.nan
    test_ece: float = math.nan  # expected calibration error on the test set, see ``evaluation.Tally``
    # of the loss's Hessian on a probe batch (unit: loss / weight^2), where it was measured
    largest_eigenvalue: float = math.nan
    smallest_eigenvalue: float = math.nan  # likewise; below zero where the loss curves downwards

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


class StepMeans:
    """Collects one row of scalars per step without waiting for the device.

    Args:
        device: where the steps' scalars live.
        rows: what ``rows`` gave at the time of a checkpoint.
    """

    def __init__(self, device: torch.device, rows: Tensor | None = None) -> None:
        self._undefined = torch.full((), math.nan, device=device)
        self._rows: list[Tensor] = [] if rows is None else list(rows.to(device).unbind())

    def add(self, loss: Tensor, record: object) -> None:
        """Take a step's loss and what its record defines; ``stack`` copies, so reused buffers are no danger."""
        row = [loss.detach(), *(self._scalar(getattr(record, name, None)) for name in FROM_RECORD)]
        self._rows.append(torch.stack([value.reshape(()).to(torch.float64) for value in row]))

    def _scalar(self, value: Tensor | float | None) -> Tensor:
        if value is None:
            return self._undefined
        # A rule may report a plain number (a constant gamma): that is no reason to wait either.
        return value.detach() if isinstance(value, Tensor) else torch.full_like(self._undefined, value)

    def rows(self) -> Tensor:
        """One row a step: the loss, then the names of the record. Shape (steps, columns), float64."""
        width = 1 + len(FROM_RECORD)
        return torch.stack(self._rows) if self._rows else self._undefined.new_empty(0, width, dtype=torch.float64)

    def means(self) -> dict[str, float]:
        """``train_loss`` and the names of the record; it reads the device."""
        return means_of(self.rows())


def means_of(rows: Tensor) -> dict[str, float]:
    """Means of the columns: a loss that is NaN shows, a record's NaN is what the step did not define."""
    means = torch.cat([rows[:, 0].mean()[None], rows[:, 1:].nanmean(0)])
    return dict(zip(("train_loss", *FROM_RECORD), means.tolist(), strict=True))


def first_lost(rows: Tensor) -> int | None:
    """The first step, from 1, with a loss that is no finite number; 1 where every step was skipped; else None."""
    bad = (~rows[:, 0].isfinite()).tolist()
    if True in bad:
        return bad.index(True) + 1
    return 1 if len(rows) and bool((rows[:, 1 + FROM_RECORD.index("skipped")] == 1).all()) else None
