"""One run, described completely: the same configuration gives the same numbers and the same name in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from fenland.lab.errors import BadInput, one_of
from fenland.lab.schedules import SCHEDULES

# Raise it when a field or a recorded number changes its meaning: stored runs of older schemas are then not reused.
SCHEMA = 1
PRECISIONS = ("32-true", "bf16-mixed", "64-true")

# Fields that say where the run happens, not what it computes.
_NOT_HASHED = ("data_dir",)


@dataclass(frozen=True)
class RunConfig:
    """The full configuration of one run.

    Args:
        data: ``digits``, ``mnist``, ``cifar10``, ``cifar100``, ``local`` or a hub name ``owner/name``.
        model: a name of ``fenland.lab.models.MODELS``.
        optimizer: a name of ``fenland.lab.optimizers.OPTIMIZERS``.
        seed: fixes the initial weights, the order of the examples, augmentation and dropout.
        rho: radius of the ascent, in the norm of the weights; None for an optimizer without one.
        lr: learning rate of the base optimizer at the start.
        momentum: momentum of the base SGD.
        weight_decay: L2 penalty of the base SGD (5e-4: the usual choice for small images, as in Foret et al. 2021).
        batch_size: examples per step; an epoch drops the incomplete last batch.
        epochs: passes over the training set.
        schedule: a name of ``fenland.lab.schedules.SCHEDULES``.
        limit: train on this many examples, stratified over the classes; None for all.
        augment: random crop (zero padding 4) and horizontal flip.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: a precision of Lightning Fabric, such as ``32-true``.
        threads: of torch on the CPU. They change the order of sums and so the last digits: hence a part of the run.
        data_dir: folder of local parquet files; None for digits and the hub. Not part of the hash: ``data_id`` is.
        data_id: identity of the data, filled in by ``fenland.lab.data.identify``.
    """

    data: str
    model: str
    optimizer: str
    seed: int = 0
    rho: float | None = None
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    epochs: int = 1
    schedule: str = "cosine"
    limit: int | None = None
    augment: bool = False
    device: str = "cpu"
    precision: str = "32-true"
    threads: int = 1
    data_dir: str | None = None
    data_id: str = ""

    def __post_init__(self) -> None:
        for name in ("lr",):
            _require(self, name, _positive, "give a number > 0")
        for name in ("weight_decay", "rho"):
            _require(self, name, _not_negative, "give a number >= 0")
        _require(self, "momentum", lambda value: _not_negative(value) and value < 1, "give a number in [0, 1)")
        for name in ("batch_size", "epochs", "limit", "threads"):
            _require(self, name, lambda value: _whole(value) and value >= 1, "give a whole number >= 1")
        _require(self, "seed", lambda value: _whole(value) and value >= 0, "give a whole number >= 0")
        _require(self, "schedule", lambda value: value in SCHEDULES, one_of(SCHEDULES))
        _require(self, "precision", lambda value: value in PRECISIONS, one_of(PRECISIONS))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Read what ``as_dict`` wrote; keys that this version does not know are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def identity(self) -> dict[str, Any]:
        """What fixes the numbers of the run: everything but where its data lies."""
        return {key: value for key, value in self.as_dict().items() if key not in _NOT_HASHED}

    @property
    def hash(self) -> str:
        """Twelve hex digits of the configuration's SHA-256: the name of the run in a store."""
        text = json.dumps({"schema": SCHEMA, **self.identity()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """A short name for people."""
        return f"{self.optimizer} seed {self.seed}"


def _require(config: RunConfig, name: str, holds: Any, cure: str) -> None:
    value = getattr(config, name)
    optional = name in ("rho", "limit")
    if (value is None and optional) or (value is not None and holds(value)):
        return
    raise BadInput(name, value, cure)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _not_negative(value: Any) -> bool:
    return _number(value) and value >= 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
