"""What was run, where, and how to run it again, as pairs of names and values."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from fenland.lab.config import RunConfig
from fenland.lab.config.run_config import FIELDS as FIELDS_OF_A_RUN
from fenland.lab.config.run_config import SHARED
from fenland.lab.figures.style import title_of
from fenland.lab.store.records import Records
from fenland.lab.store.runs import PLACES

# The configuration's fields in the order of the page, with their names there; others follow under their own.
FIELDS = {
    "data": "Data", "model": "Model", "parameters": "Parameters", "optimizer": "Optimizer", "rho": "Radius rho",
    "lr": "Learning rate", "momentum": "Momentum", "weight_decay": "Weight decay", "schedule": "Schedule",
    "batch_size": "Batch size", "epochs": "Epochs", "seed": "Seeds", "limit": "Training examples",
    "augment": "Augmentation", "device": "Device", "precision": "Precision",
}  # fmt: skip
# What a run was set to, and what follows from that; all other columns are results. Two fields say nothing to a reader.
LEFT_OUT = {"data_id", "data_dir"}
SETTINGS = ({field.name for field in fields(RunConfig)} | {"parameters", "noisy_labels"}) - LEFT_OUT
OPTIONS = ("data", "model", "lr", "momentum", "weight_decay", "batch_size", "epochs", "schedule")


def configuration(records: Records) -> list[tuple[str, str]]:
    """What was run; a field that differs between optimizers lists who had what."""
    runs = records.results
    names = [*FIELDS, *(name for name in runs.columns if name not in FIELDS)]
    shown = [name for name in names if name in runs and name in SETTINGS]
    pairs = []
    for name in shown:
        text = _values(runs, name)
        if text:
            pairs.append((named(name), text))
    return pairs


def named(field: str) -> str:
    """A field of the configuration as people call it."""
    return FIELDS.get(field, field.replace("_", " ").capitalize())


def _values(runs: pd.DataFrame, name: str) -> str:
    if name == "optimizer":
        return ", ".join(title_of(label) for label in dict.fromkeys(runs["label"]))
    if name == "seed":
        return ", ".join(str(seed) for seed in sorted(set(runs["seed"])))
    owners: dict[str, list[str]] = {}
    for label, group in runs.groupby("label", sort=False)[name]:
        owners.setdefault(_join(group), []).append(title_of(str(label)))
    if len(owners) == 1:
        only = next(iter(owners))
        return "all" if name == "limit" and not only else only
    return "; ".join(f"{text} ({', '.join(labels)})" for text, labels in owners.items() if text)


def _join(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(_plain(value) for value in values if not _missing(value)))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "on" if value else "off"
    return f"{value:,.10g}" if isinstance(value, (int, float)) else str(value)


def environment(records: Records) -> list[tuple[str, str]]:
    """Versions and machines; where runs differ, every value that occurred. Times become the span of all runs."""
    return machines(records.environments)


def machines(environments: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The same of any environments."""
    names = list(dict.fromkeys(name for each in environments for name in each))
    pairs = []
    for name in names:
        values = [each[name] for each in environments if not _missing(each.get(name))]
        if not values or name in PLACES:  # a folder on somebody's machine is nobody else's business
            continue
        texts = sorted({_moment(str(value)) if name == "time" else _flat(value) for value in values})
        text = f"{texts[0]} to {texts[-1]}" if name == "time" and len(texts) > 1 else ", ".join(texts)
        pairs.append((name.replace("_", " "), text))
    return pairs


def _moment(text: str) -> str:
    """An ISO time to the minute."""
    return text[:16].replace("T", " ") + " UTC" if text.endswith("+00:00") else text


def _flat(value: Any) -> str:
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)


def command(records: Records) -> tuple[str, bool]:
    """The command that repeats it, and whether it is the one that was given (else it is put together from the runs)."""
    given = records.comparison.get("command")
    if given:
        return str(given), True
    runs = records.results
    words = ["fenland", "compare", "--optimizers", *dict.fromkeys(runs["optimizer"].tolist())]
    for name in dict.fromkeys((*OPTIONS, *SHARED)):
        values = _distinct(runs[name]) if name in runs else []
        # What the command fills in by itself may be another thing elsewhere; else a default need not be said.
        said = name in OPTIONS or FIELDS_OF_A_RUN[name].auto or values != [getattr(RunConfig, name, None)]
        if len(values) == 1 and said and name not in LEFT_OUT:
            words += [f"--{name.replace('_', '-')}", _given(values[0])]
    return shlex.join([*words, *_own(runs), "--seeds", _seeds(sorted(set(runs["seed"].tolist())))]), False


def _distinct(values: Iterable[Any]) -> list[Any]:
    """The values that occur, each once; those of lists too, which have no hash."""
    return list({str(value): value for value in values if not _missing(value)}.values())


def _given(value: Any) -> str:
    return ("off", "on")[bool(value)] if type(value).__name__.startswith("bool") else str(value)


def _own(runs: pd.DataFrame) -> list[str]:
    """The radius and the options of each optimizer, where all its runs have the same."""
    radii: list[str] = []
    options: list[str] = []
    for optimizer, group in runs.groupby("optimizer", sort=False):
        rho = _distinct(group["rho"]) if "rho" in group else []
        radii += [f"{optimizer}={rho[0]}"] if len(rho) == 1 else []
        lists = {tuple(each) for each in group["options"]} if "options" in group else set()
        options += [f"{optimizer}:{each}" for own in lists for each in own] if len(lists) == 1 else []
    return [*(["--rho", *radii] if radii else []), *(["--options", *options] if options else [])]


def _seeds(seeds: Sequence[int]) -> str:
    """How many, or which where they do not count from 0."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) if len(seeds) > 1 else f"{seeds[0]}..{seeds[0]}"
