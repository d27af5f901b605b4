"""A sweep of training runs: every combination of the values that fields of a run are set to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fenland.lab.config import RunConfig, words
from fenland.lab.config.entry import AUTO
from fenland.lab.config.run_config import BASES, FIELDS, SHARED, of_field
from fenland.lab.errors import BadInput
from fenland.lab.models import pretrained
from fenland.lab.store.runs import Store
from fenland.lab.sweep import idle
from fenland.lab.sweep.planning import base_run
from fenland.lab.training.optimizers import check_optimizer, check_options

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")
# What a sweep sets unless it is told otherwise: the runs of `fenland compare`.
_DEFAULTS = ("optimizer=sgd,sam,ssam", "seed=0..4")
# Fields that are found, from the data and the model that are named: nobody sets them.
_FOUND = ("data_id", "model_dir", "model_id")
# Fields that identification fills in.
_IDENTIFIED = ("data", "data_dir", "data_id", "model", "model_dir", "model_id")
# Columns of the table: the result, its name there, digits, factor.
SHOWN = (("test_accuracy", "test acc. %", 2, 100.0), ("test_loss", "test loss", 4, 1.0), ("loss_gap", "gap", 4, 1.0))


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Args:
        runs: each once, seed by seed, so that an interrupted sweep has compared something.
        fields: those that take several values, but for the seed: together they name a setting.
    """

    runs: tuple[RunConfig, ...]
    fields: tuple[str, ...]


def plan(given: Sequence[str], device: str | None = None) -> Plan:
    """The runs that ``field=values`` words ask for; fields that are not named have `fenland compare`'s defaults.

    ``rho`` is set where the optimizer has a radius, so that others run once and not once for each of its values.

    Args:
        given: see ``fenland.lab.config.words``.
        device: of all runs, for those that run on another machine; None: as asked for, and found on this one.

    Raises:
        BadInput: naming the field, the value and what is allowed. The data sets' files are checked too.
    """
    axes = words.axes(given, RunConfig, refused=_FOUND)
    values = words.axes(_DEFAULTS, RunConfig) | axes
    seeds = {"seed": values.pop("seed")}
    runs: dict[str, RunConfig] = {}
    identified: dict[tuple[Any, ...], RunConfig] = {}
    for each in words.combinations(seeds | values):
        run = _blamed(each, lambda each=each: _run(each, device))  # type: ignore[misc]
        place = run.data, run.data_dir, run.test_split, run.model, run.lora, run.max_tokens
        if place not in identified:
            identified[place] = _blamed(each, lambda run=run: _identified(run))  # type: ignore[misc]
        known = identified[place]
        run = replace(run, **{name: getattr(known, name) for name in _IDENTIFIED})
        runs[run.hash] = run
    _blamed({}, lambda: idle.refuse(list(runs.values())))
    if "rho" in axes and all(run.rho is None for run in runs.values()):
        cure = f"none of these optimizers has a radius ({', '.join(values['optimizer'])})"
        raise BadInput("set", f"rho={','.join(axes['rho'])}", cure)
    # Folders named as data are told apart by data_dir, those named as a model by model_dir.
    names = dict.fromkeys((*values, "data_dir", "model_dir"))
    several = [name for name in names if len({getattr(run, name) for run in runs.values()}) > 1]
    return Plan(tuple(runs.values()), tuple(several))


def _run(values: dict[str, str], device: str | None) -> RunConfig:
    shared = {name: text for name, text in values.items() if name in SHARED}
    own: dict[str, Any] = {name: of_field(name, values[name]) for name in ("seed", "options") if name in values}
    optimizer = values["optimizer"]
    row = check_optimizer(optimizer)
    if optimizer in BASES:
        shared["base"] = optimizer
    check_options(optimizer, own.get("options", ()))
    if row.rho is not None:
        own["rho"] = row.rho if values.get("rho", AUTO) == AUTO else of_field("rho", values["rho"])
    return replace(base_run(shared, device), optimizer=optimizer, **own)


def _identified(run: RunConfig) -> RunConfig:
    from fenland.lab import data

    return pretrained.identify(data.identify(run))


def _as_settings(cure: str) -> str:
    """A cure in the words of this command."""
    for option, setting in (("--data ", "--set data="), ("--test-split ", "--set test_split=")):
        cure = cure.replace(option, setting)
    return cure


def _blamed(values: dict[str, str], make: Callable[[], T]) -> T:
    """Call, and name errors after what stands on the command line."""
    try:
        return make()
    except BadInput as error:
        name = {"optimizers": "optimizer"}.get(error.argument, error.argument).replace("-", "_")
        if name == "set" or name not in FIELDS:
            raise
        # A file inside the folder that was given says more than the folder.
        shown = error.value if isinstance(error.value, Path) else values.get(name, error.value)
        raise BadInput("set", f"{name}={shown}", _as_settings(error.cure)) from None


def table(done: Plan, store: Store) -> pandas.DataFrame:
    """One row a setting: its fields, ``n`` finished seeds, ``diverged`` and ``missing`` ones, and over the seeds the
    means of the results, with ``NAME_low`` and ``NAME_high``, their 95 % Student-t intervals (NaN for one seed).
    """
    import pandas

    from fenland.lab.store.statistics import interval

    groups: dict[tuple[Any, ...], list[RunConfig]] = {}
    for run in done.runs:
        groups.setdefault(tuple(getattr(run, name) for name in done.fields), []).append(run)
    rows = []
    for setting, runs in groups.items():
        results = [store.load(run.hash).result for run in runs if store.finished(run.hash)]
        whole = [result for result in results if result["status"] == "finished"]
        row: dict[str, Any] = dict(zip(done.fields, setting, strict=True)) or {"optimizer": runs[0].optimizer}
        row |= {"n": len(whole), "diverged": len(results) - len(whole), "missing": len(runs) - len(results)}
        for name, *_ in SHOWN:
            found = interval([result[name] for result in whole])
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | {"seconds": interval([result["seconds"] for result in whole]).mean})
    return pandas.DataFrame(rows)
