"""Is the ascent active, and how sharp is the loss along it? Step records, collected without waiting for the device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.diagnostics.climbing import points_along
from fenland.optimizer import SharpnessAware

FIELDS = (
    "loss",
    "loss_ascent",
    "grad_norm",
    "ascent_grad_norm",
    "gamma",
    "radius",
    "cosine",
    "realised_radius",
    "realised_cosine",
    "skipped",
)
STILL = 1e-6  # float32 cannot tell cos(g, h) better from 1
ASTRAY = 0.05  # relative error of |e| that is reported (user need N9)


@dataclass(frozen=True)
class Summary:
    """What a monitor has seen.

    Attributes:
        steps: records seen; numbers are over the records that have the field.
        skipped: steps that a non-finite gradient stopped.
        means: mean of each field (units: see `StepRecord`).
        last: latest value of each field.
    """

    steps: int
    skipped: int
    means: Mapping[str, float]
    last: Mapping[str, float]


class Monitor:
    """Collects `opt.last` after each step, and warns if the ascent does nothing.

    `update` keeps tensors on the device and does not wait for them. After `batch` records all of them are read in one
    small copy. The warnings need sampled records (`record_every=`), each of which takes one pass over the weights. Over
    `patience` sampled records there is one warning if

    - cos(g, h) and |g| / |h| are 1: pass 2 sees the gradient of pass 1, so the perturbation has no effect;
    - the median of the realised |e| is off by more than 5 %: the precision of the weights loses the perturbation.

    Args:
        optimizer: the optimizer to watch.
        batch: records between two readings.
        patience: sampled records that a warning needs.

    Example:
        >>> monitor = Monitor(opt)
        >>> for x, y in loader:
        ...     opt.step(closure)
        ...     monitor.update()
        >>> print(monitor.summary())
    """

    def __init__(self, optimizer: SharpnessAware, *, batch: int = 100, patience: int = 20) -> None:
        if not isinstance(optimizer, SharpnessAware):
            raise TypeError(
                f"optimizer = {type(optimizer).__name__}: must be a fenland optimizer, whose steps it reads"
            )
        for name, value in (("batch", batch), ("patience", patience)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} = {value!r}: must be a whole number >= 1")
        self.optimizer = optimizer
        self.batch = batch
        self.patience = patience
        self._waiting: list[dict[str, Tensor]] = []
        self._rows: list[dict[str, float]] = []
        self._alarmed: set[str] = set()

    def update(self) -> None:
        """Take the record of the step that has just been made."""
        last = self.optimizer.last
        values = {name: getattr(last, name) for name in FIELDS}
        self._waiting.append({name: x.detach() for name, x in values.items() if isinstance(x, Tensor)})
        if len(self._waiting) >= self.batch:
            self.read()

    def read(self) -> list[dict[str, float]]:
        """All records so far as numbers, oldest first; waits for the device once."""
        waiting, self._waiting = self._waiting, []
        flat = [x.float() for record in waiting for x in record.values()]
        if flat:
            device = flat[0].device
            numbers = iter(torch.stack([x.to(device) for x in flat]).tolist())
            self._rows += [{name: next(numbers) for name in record} for record in waiting]
            self._look()
        elif waiting:
            self._rows += [{} for _ in waiting]
        return self._rows

    def summary(self) -> Summary:
        """Means and latest values of what was seen."""
        rows = self.read()
        columns = {name: [row[name] for row in rows if name in row] for name in FIELDS}
        finite = {name: [x for x in column if math.isfinite(x)] for name, column in columns.items()}
        return Summary(
            steps=len(rows),
            skipped=int(sum(columns["skipped"])),
            means={name: sum(column) / len(column) for name, column in finite.items() if column and name != "skipped"},
            last={name: column[-1] for name, column in columns.items() if column and name != "skipped"},
        )

    def _look(self) -> None:
        """Raise the alarms that are due."""
        rows = [row for row in self._rows if not row.get("skipped") and row.get("radius", 0.0) > 0]
        sampled = [row for row in rows if "cosine" in row and "gamma" in row][-self.patience :]
        if len(sampled) == self.patience and all(_still(row) for row in sampled):
            self._alarm(
                "cosine",
                f"the ascent is inactive: over {self.patience} records the gradient at w + e is that at w (cosine 1); "
                "rho may be too small, or the closure does not see the perturbed weights",
            )
        comparable = [row for row in rows if _comparable(row, self.optimizer)][-self.patience :]
        ratios = sorted(row["realised_radius"] / row["radius"] for row in comparable)
        if len(ratios) == self.patience and abs(ratios[len(ratios) // 2] - 1.0) > ASTRAY:
            self._alarm(
                "radius",
                f"the realised |e| is {ratios[len(ratios) // 2]:.2f} of the wanted one (median of {self.patience} "
                "records): the precision of the parameters loses it; keep them in float32 under torch.autocast",
            )

    def _alarm(self, name: str, message: str) -> None:
        if name not in self._alarmed:
            self._alarmed.add(name)
            warnings.warn(message, UserWarning, stacklevel=4)


def _still(row: Mapping[str, float]) -> bool:
    """Whether h is g: its direction and (for curvature that is the same in all directions) its length."""
    return abs(row["cosine"] - 1.0) < STILL and abs(row["gamma"] - 1.0) < STILL


def _comparable(row: Mapping[str, Any], optimizer: SharpnessAware) -> bool:
    """Whether `radius` is a Euclidean length, as `realised_radius` is."""
    return "realised_radius" in row and points_along(optimizer.rules.ball)
