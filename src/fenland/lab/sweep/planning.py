"""From what a user asks for to the list of runs, every value checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fenland.lab.config import RunConfig, words
from fenland.lab.config.entry import AUTO
from fenland.lab.config.run_config import FIELDS, SHARED, of_field, written
from fenland.lab.errors import BadInput
from fenland.lab.models import check_model, pretrained
from fenland.lab.sweep import idle
from fenland.lab.sweep.auto import automatic, check_device
from fenland.lab.training.optimizers import OPTIMIZERS, check_optimizer, check_options


@dataclass(frozen=True)
class Request:
    """A comparison as it is asked for, in words."""

    # of ``RunConfig``, as texts; those that are not named have their default, or ``auto``
    fields: Mapping[str, str] = field(default_factory=dict)
    optimizers: Sequence[str] = ("sgd", "sam", "ssam")  # to compare
    rho: Sequence[str] = ()  # numbers for all, or ``optimizer=number``
    options: Sequence[str] = ()  # ``optimizer:name=value`` each
    seeds: str = "5"  # how many, or which, as in ``0..4`` and ``3,5``
    device: str | None = None  # of all runs, for those that run on another machine; None: as asked for, and found here


def plan(request: Request) -> list[RunConfig]:
    """All runs of a comparison, seed by seed, so that an interrupted one has compared something.

    Raises:
        BadInput: naming the first argument that is wrong. The data set's files are checked too, but not decoded.
    """
    from fenland.lab import data

    radii = _radii(request)
    options = _options(request)
    base = base_run(request.fields, request.device)
    idle.refuse([base])
    base = pretrained.identify(data.identify(base))
    runs = []
    for seed in _seeds(request.seeds):
        runs += [replace(base, optimizer=name, rho=radii[name], seed=seed, options=options[name]) for name in radii]
    return runs


def base_run(given: Mapping[str, str], device: str | None = None) -> RunConfig:
    """What all runs of a comparison share, the base itself being the optimizer.

    Args:
        given: as ``Request.fields``.
        device: as ``Request.device``: that of another machine cannot be looked for here.
    """
    from fenland.lab.data.load import LOCAL

    texts = {name: given.get(name, written(name)) for name in SHARED}
    texts |= {} if device is None else {"device": device}
    if texts["data"] == LOCAL:
        raise BadInput("data", texts["data"], "give the folder itself, as in --data DIR")
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if text == AUTO and FIELDS[name].auto:
            values[name] = automatic(name, texts)
        else:
            values[name] = of_field(name, text)
    check_model(values["model"])
    if device is None:
        check_device(values["device"])
    return RunConfig(optimizer=values["base"], **values)


def _seeds(text: str) -> list[int]:
    if "," not in text and ".." not in text:
        return list(range(words.whole("seeds", text)))
    try:
        found: tuple[int, ...] = words.value(text, tuple[int, ...])
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise BadInput("seeds", text, "give how many, or different whole numbers >= 0 as in 0..4 or 3,5")
    return list(found)


def _radii(request: Request) -> dict[str, float | None]:
    """The radius of each optimizer, in the order asked for."""
    if not request.optimizers:
        raise BadInput("optimizers", "(none)", "name at least one, such as: sgd sam ssam")
    radii = {name: check_optimizer(name).rho for name in request.optimizers}
    climbing = [name for name, rho in radii.items() if rho is not None]
    own: dict[str, float] = {}  # an optimizer's own, and under the empty name that of all others
    for text in request.rho:
        name, given, number = text.rpartition("=")
        value = words.number(number)
        if not FIELDS["rho"].allowed.holds(value):
            raise BadInput("rho", text, "give a number >= 0, or optimizer=number")
        if given and name not in radii:
            raise BadInput("rho", text, f"{name or 'the name'} is not among the optimizers ({', '.join(radii)})")
        if given and OPTIMIZERS[name].rho is None:
            raise BadInput("rho", text, f"{name} has no radius; leave it out")
        if not climbing:
            raise BadInput("rho", text, f"none of these optimizers has a radius ({', '.join(radii)}); leave it out")
        if name in own:
            cure = "keep one; fenland sweep compare --set rho=0.05,0.1 compares several"
            raise BadInput("rho", " ".join(request.rho), f"gives two radii for {name or 'all optimizers'}; {cure}")
        own[name] = value
    return radii | {name: own.get(name, own.get("", radii[name])) for name in climbing}


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
