"""From what a user asks for to the list of runs, every value checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fenland.lab.config import RunConfig
from fenland.lab.config.checks import BASES, PRECISIONS
from fenland.lab.config.schedules import SCHEDULES
from fenland.lab.errors import BadInput, one_of
from fenland.lab.models import check_model
from fenland.lab.training.optimizers import OPTIMIZERS, check_optimizer, check_options

AUTO = "auto"


@dataclass(frozen=True)
class Request:
    """A comparison as it is asked for, in words; ``auto`` takes the default of the data set.

    The fields mean what ``RunConfig`` says; ``seeds`` is how many, ``rho`` numbers for all or ``optimizer=number``,
    ``options`` are ``optimizer:name=value``.
    """

    data: str = "digits"
    data_dir: str | None = None
    model: str = AUTO
    optimizers: Sequence[str] = ("sgd", "sam", "ssam")
    rho: Sequence[str] = ()
    lr: str = AUTO
    momentum: str = "0.9"
    weight_decay: str = "5e-4"
    batch_size: str = AUTO
    epochs: str = AUTO
    schedule: str = "cosine"
    seeds: str = "5"
    limit: str = "all"
    augment: str = AUTO
    device: str = AUTO
    precision: str = "32-true"
    threads: str = "1"
    base: str = "sgd"
    options: Sequence[str] = ()
    warmup: str = "0"
    label_smoothing: str = "0"
    label_noise: str = "0"
    cutout: str = "0"
    data_seed: str = "0"
    strategy: str = AUTO
    devices: str = "1"
    curvature: str = "0"
    weights: bool = False


@dataclass(frozen=True)
class Defaults:
    """What ``auto`` stands for."""

    model: str
    lr: float
    batch_size: int
    epochs: int
    augment: bool


# A baseline that trains badly would flatter the others, so the rates are SGD's own best. LeNet on digits, 5 seeds:
# 93.9, 96.2, 96.7, 97.7 and 39.5 % at 0.01, 0.02, 0.05, 0.1 and 0.2. LeNet on MNIST, 2 epochs, 3 seeds: 98.4 % at 0.02,
# 96.4 % at 0.05. CIFAR: the usual recipe, cut to 30 epochs.
_DEFAULTS = {
    "digits": Defaults("lenet", lr=0.1, batch_size=64, epochs=30, augment=False),
    "mnist": Defaults("lenet", lr=0.02, batch_size=128, epochs=10, augment=False),
    "cifar10": Defaults("resnet20", lr=0.1, batch_size=128, epochs=30, augment=True),
    "cifar100": Defaults("resnet20", lr=0.1, batch_size=128, epochs=30, augment=True),
}
_OTHER = Defaults("resnet20", lr=0.1, batch_size=128, epochs=30, augment=False)
# Of bases other than SGD: the usual first choice, not tuned here.
_RATES = {"adamw": 1e-3}


def plan(request: Request) -> list[RunConfig]:
    """All runs of a comparison, seed by seed, so that an interrupted one has compared something.

    Raises:
        BadInput: naming the first argument that is wrong. The data set's files are checked too, but not decoded.
    """
    from fenland.lab import data

    radii = _radii(request)
    options = _options(request)
    base = data.identify(base_run(request))
    runs = []
    for seed in range(whole_number("seeds", request.seeds, least=1)):
        runs += [replace(base, optimizer=name, rho=radii[name], seed=seed, options=options[name]) for name in radii]
    return runs


def base_run(request: Request) -> RunConfig:
    """What all runs of a comparison share, the base itself being the optimizer."""
    defaults = _DEFAULTS.get(request.data, _OTHER)
    model = defaults.model if request.model == AUTO else request.model
    check_model(model)
    if request.schedule not in SCHEDULES:
        raise BadInput("schedule", request.schedule, one_of(SCHEDULES))
    if request.precision not in PRECISIONS:
        raise BadInput("precision", request.precision, one_of(PRECISIONS))
    if request.base not in BASES:
        raise BadInput("base", request.base, one_of(BASES))
    return RunConfig(
        data=request.data,
        data_dir=request.data_dir,
        model=model,
        optimizer=request.base,
        base=request.base,
        lr=_number(
            "lr", request.lr, _RATES.get(request.base, defaults.lr), lambda value: value > 0, "give a number > 0"
        ),
        momentum=_number("momentum", request.momentum, None, lambda value: 0 <= value < 1, "give a number in [0, 1)"),
        weight_decay=_number("weight-decay", request.weight_decay, None, lambda v: v >= 0, "give a number >= 0"),
        batch_size=whole_number("batch-size", request.batch_size, defaults.batch_size),
        epochs=whole_number("epochs", request.epochs, defaults.epochs),
        schedule=request.schedule,
        limit=None if request.limit == "all" else whole_number("limit", request.limit),
        augment=_switch("augment", request.augment, defaults.augment),
        device=_device(request.device),
        precision=request.precision,
        threads=whole_number("threads", request.threads),
        **_later(request),
    )


def _later(request: Request) -> dict[str, Any]:
    """What has no default of the data set's own."""
    share = "give a number in [0, 1)"
    return {
        "warmup": _number("warmup", request.warmup, None, lambda v: v >= 0, "give a number of epochs >= 0"),
        "label_smoothing": _number("label-smoothing", request.label_smoothing, None, lambda v: 0 <= v < 1, share),
        "label_noise": _number(
            "label-noise", request.label_noise, None, lambda v: 0 <= v <= 1, "give a share in [0, 1]"
        ),
        "cutout": whole_number("cutout", request.cutout, least=0),
        "data_seed": whole_number("data-seed", request.data_seed, least=0),
        "curvature": whole_number("curvature", request.curvature, least=0),
        "strategy": request.strategy,
        "devices": whole_number("devices", request.devices),
        "weights": request.weights,
    }


def _radii(request: Request) -> dict[str, float | None]:
    """The radius of each optimizer, in the order asked for."""
    if not request.optimizers:
        raise BadInput("optimizers", "(none)", "name at least one, such as: sgd sam ssam")
    radii = {name: check_optimizer(name).rho for name in request.optimizers}
    for text in request.rho:
        name, given, number = text.rpartition("=")
        value = _number("rho", number, None, lambda value: value >= 0, "give a number >= 0, or optimizer=number", text)
        if given and name not in radii:
            raise BadInput("rho", text, f"{name or 'the name'} is not among the optimizers ({', '.join(radii)})")
        if given and OPTIMIZERS[name].rho is None:
            raise BadInput("rho", text, f"{name} has no radius; leave it out")
        named = [name] if given else [each for each in radii if OPTIMIZERS[each].rho is not None]
        radii.update(dict.fromkeys(named, value))
    return radii


def _options(request: Request) -> dict[str, tuple[str, ...]]:
    """The options of each optimizer, from ``optimizer:name=value``."""
    found: dict[str, tuple[str, ...]] = {name: () for name in request.optimizers}
    for text in request.options:
        name, colon, option = text.partition(":")
        if not colon or "=" not in option:
            raise BadInput("options", text, "write optimizer:name=value, as in asam:eta=0.1")
        if name not in found:
            raise BadInput("options", text, f"{name or 'the name'} is not among the optimizers ({', '.join(found)})")
        found[name] += (option,)
    for name, given in found.items():
        check_options(name, given)
    return found


def _number(
    name: str, text: str, default: float | None, holds: Callable[[float], bool], cure: str, shown: str | None = None
) -> float:
    if text == AUTO and default is not None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not holds(value):
        raise BadInput(name, text if shown is None else shown, cure)
    return value


def whole_number(name: str, text: str, default: int | None = None, least: int = 1) -> int:
    """Read a whole number; ``auto`` is the default, where there is one."""
    if text == AUTO and default is not None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise BadInput(name, text, f"give a whole number >= {least}")
    return value


def _switch(name: str, text: str, default: bool) -> bool:
    if text not in (AUTO, "on", "off"):
        raise BadInput(name, text, "choose one of auto, on, off")
    return default if text == AUTO else text == "on"


def _device(text: str) -> str:
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if text == AUTO:
        return next(name for name, available in here.items() if available)
    if text not in here:
        raise BadInput("device", text, one_of((AUTO, *here)))
    if not here[text]:
        raise BadInput("device", text, f"torch sees none here; {one_of(name for name, there in here.items() if there)}")
    return text
