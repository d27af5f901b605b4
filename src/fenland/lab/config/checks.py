"""What each field of a run's configuration may hold, with the cure where it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fenland.lab.config.schedules import SCHEDULES
from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

PRECISIONS = ("32-true", "bf16-mixed", "64-true", "16-mixed")
BASES = ("sgd", "adamw")
STRATEGIES = ("auto", "ddp", "fsdp")
_OPTION = re.compile(r"[A-Za-z_]\w*=.+")

Holds = Callable[[Any], bool]


def check_fields(config: RunConfig) -> None:
    """Check every field by itself, then those that must fit each other.

    Raises:
        BadInput: naming the first field that is wrong.
    """
    for name, (holds, cure, optional) in _RULES.items():
        value = getattr(config, name)
        if not ((value is None and optional) or (value is not None and holds(value))):
            raise BadInput(name, value, cure)
    for check in (_check_options, _check_warmup, _check_half, _check_base, _check_devices):
        check(config)


def _check_options(config: RunConfig) -> None:
    for text in config.options:
        if not (isinstance(text, str) and _OPTION.fullmatch(text)):
            raise BadInput("options", text, "write name=value, as in eta=0.01")
    names = [text.partition("=")[0] for text in config.options]
    for name in names:
        if names.count(name) > 1:
            raise BadInput("options", " ".join(config.options), f"{name} is given twice; keep one")


def _check_warmup(config: RunConfig) -> None:
    if config.warmup > config.epochs:
        raise BadInput("warmup", config.warmup, f"give at most {config.epochs}, the number of epochs")


def _check_half(config: RunConfig) -> None:
    if config.precision == "16-mixed" and config.device != "cuda":
        cure = f"float16 needs device cuda, this run is on {config.device}; take bf16-mixed there"
        raise BadInput("precision", config.precision, cure)


def _check_base(config: RunConfig) -> None:
    if config.optimizer in BASES and config.optimizer != config.base:
        raise BadInput(
            "optimizers", config.optimizer, f"the base is {config.base}; name that, or give base={config.optimizer}"
        )


def _check_devices(config: RunConfig) -> None:
    if config.devices > 1 and config.strategy == "auto":
        raise BadInput("devices", config.devices, "more than one needs strategy ddp or fsdp")
    if config.devices > 1 and config.device == "mps":
        raise BadInput("devices", config.devices, "there is one mps device; take cpu or cuda")
    if config.devices > 1 and config.curvature:
        raise BadInput("curvature", config.curvature, "is measured in one process; leave it out, or give devices=1")
    if config.batch_size % config.devices:
        cure = f"it is shared by {config.devices} devices; give a multiple of {config.devices}"
        raise BadInput("batch_size", config.batch_size, cure)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _between(low: float, high: float, open_end: bool) -> Holds:
    return lambda value: _number(value) and low <= value and (value < high if open_end else value <= high)


def _whole(least: int) -> Holds:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _among(allowed: tuple[str, ...]) -> tuple[Holds, str, bool]:
    return (lambda value: value in allowed), one_of(allowed), False


def _counts(least: int, optional: bool = False) -> tuple[Holds, str, bool]:
    return _whole(least), f"give a whole number >= {least}", optional


def _switch() -> tuple[Holds, str, bool]:
    return (lambda value: isinstance(value, bool)), "give True or False", False


_NOT_NEGATIVE: Holds = lambda value: _number(value) and value >= 0  # noqa: E731  (one of a table of conditions)

# Field: the condition, what to do where it fails, and whether None is allowed.
_RULES: dict[str, tuple[Holds, str, bool]] = {
    "lr": (lambda value: _number(value) and value > 0, "give a number > 0", False),
    "weight_decay": (_NOT_NEGATIVE, "give a number >= 0", False),
    "rho": (_NOT_NEGATIVE, "give a number >= 0", True),
    "warmup": (_NOT_NEGATIVE, "give a number of epochs >= 0", False),
    "momentum": (_between(0, 1, open_end=True), "give a number in [0, 1)", False),
    "label_smoothing": (_between(0, 1, open_end=True), "give a number in [0, 1)", False),
    "label_noise": (_between(0, 1, open_end=False), "give a share in [0, 1]", False),
    "batch_size": _counts(1),
    "epochs": _counts(1),
    "threads": _counts(1),
    "devices": _counts(1),
    "limit": _counts(1, optional=True),
    "seed": _counts(0),
    "data_seed": _counts(0),
    "cutout": _counts(0),
    "curvature": _counts(0),
    "replace": _counts(0, optional=True),
    "augment": _switch(),
    "weights": _switch(),
    "base": _among(BASES),
    "strategy": _among(STRATEGIES),
    "schedule": _among(tuple(SCHEDULES)),
    "precision": _among(PRECISIONS),
}
