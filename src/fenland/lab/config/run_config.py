"""One run, described completely: the same configuration gives the same numbers and the same name in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from fenland.lab.config.checks import PRECISIONS, check_fields

__all__ = ["PRECISIONS", "SCHEMA", "RunConfig"]

# Raise it when a field or a recorded number changes its meaning: stored runs of older schemas are then not reused.
SCHEMA = 2

# Fields that say where the run happens or what is kept of it, not what it computes.
_NOT_HASHED = ("data_dir", "weights")
# Fields that came later: runs without them keep their names.
_HASHED_WHERE_SET = ("curvature",)


@dataclass(frozen=True)
class RunConfig:
    """The full configuration of one run.

    Args:
        data: ``digits``, ``mnist``, ``cifar10``, ``cifar100``, ``local`` or a hub name ``owner/name``.
        model: a name of ``fenland.lab.models.MODELS``.
        optimizer: a name of ``fenland.lab.training.optimizers.OPTIMIZERS``.
        seed: fixes the initial weights, the order of the examples, augmentation and dropout.
        rho: radius of the ascent, in the norm of the weights; None for an optimizer without one.
        lr: learning rate of the base optimizer, the highest one of the schedule.
        momentum: momentum of the base SGD, first beta of AdamW (its second one is 0.999).
        weight_decay: L2 penalty of the base SGD (5e-4: the usual choice for small images, as in Foret et al. 2021);
            decoupled decay of AdamW.
        batch_size: examples per step, of all devices together; an epoch drops the incomplete last batch.
        epochs: passes over the training set.
        schedule: a name of ``fenland.lab.config.schedules.SCHEDULES``.
        limit: train on this many examples, stratified over the classes; None for all.
        augment: random crop (zero padding 4) and horizontal flip.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: a precision of Lightning Fabric: ``32-true``, ``bf16-mixed``, ``64-true``, on CUDA ``16-mixed``.
        threads: of torch on the CPU. They change the order of sums and so the last digits: hence a part of the run.
        data_dir: folder of local parquet files; None for digits and the hub. Not part of the hash: ``data_id`` is.
        data_id: identity of the data, filled in by ``fenland.lab.data.identify``.
        base: ``sgd`` or ``adamw``: the optimizer that takes the step.
        options: arguments of the optimizer's preset as ``name=value``, such as ``eta=0.01``; kept sorted.
        warmup: epochs (fractions too) over which the learning rate rises linearly, step by step, to the schedule's.
        label_smoothing: share of the target spread over all classes, in the training loss only: every recorded
            evaluation is without it.
        label_noise: share of the train labels that are replaced by another class.
        cutout: side of the square, in pixels, that is blanked in each training image; 0 for none.
        data_seed: fixes the choice of ``limit``, the noisy labels and the replaced example.
        replace: number of the neighbouring train set that differs in one example, from 0; None for the set itself.
        strategy: ``auto`` (one process), ``ddp`` (replicated) or ``fsdp`` (sharded) over ``devices`` processes.
        devices: processes, each with its own device (on the CPU: its own threads).
        curvature: epochs between two measurements of the Hessian's largest and smallest eigenvalue on a probe batch, at
            the last epoch too; 0 for none. Its time is not training time.
        weights: keep the final weights with the result. Not part of the hash.
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
    base: str = "sgd"
    options: tuple[str, ...] = ()
    warmup: float = 0.0
    label_smoothing: float = 0.0
    label_noise: float = 0.0
    cutout: int = 0
    data_seed: int = 0
    replace: int | None = None
    strategy: str = "auto"
    devices: int = 1
    curvature: int = 0
    weights: bool = False

    def __post_init__(self) -> None:
        # A list, as JSON gives it back, is the same configuration; so are other orders of the options.
        object.__setattr__(self, "options", tuple(sorted(map(str, self.options))))
        check_fields(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Read what ``as_dict`` wrote; keys that this version does not know are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def identity(self) -> dict[str, Any]:
        """What fixes the numbers of the run: everything but where its data lies and what is kept."""
        left_out = {*_NOT_HASHED, *(name for name in _HASHED_WHERE_SET if not getattr(self, name))}
        return {key: value for key, value in self.as_dict().items() if key not in left_out}

    @property
    def hash(self) -> str:
        """Twelve hex digits of the configuration's SHA-256: the name of the run in a store."""
        text = json.dumps({"schema": SCHEMA, **self.identity()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """A short name for people."""
        return " ".join((self.optimizer, *self.options, f"seed {self.seed}"))
