"""Reading a store: every whole run under ``OUT/runs`` as two tables, one row a run and one row a run and epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fenland.lab.config import RunConfig
from fenland.lab.config.entry import WHERE_SET
from fenland.lab.config.run_config import FIELDS
from fenland.lab.store.files import read_json, read_table
from fenland.lab.store.runs import Store

_LOG = logging.getLogger(__name__)
_AGAIN = "start the command that made it again"
# What a repetition may differ in, and so is no part of a label: the seed, and where the data lay.
REPEATED = ("seed", "data_dir")


@dataclass(frozen=True)
class Records:
    """What a store holds."""

    out: Path  # the folder that was read
    # one row a run: ``run, optimizer, label, seed``, its configuration and its result (a result whose name the
    # configuration also uses is stored as ``result_NAME``)
    results: pd.DataFrame
    metrics: pd.DataFrame  # one row a run and epoch: ``run, optimizer, label, seed, epoch`` and what was measured
    environments: tuple[dict[str, Any], ...]  # one dictionary a run, in the order of ``results``
    comparison: dict[str, Any]  # ``OUT/compare.json``, or empty

    @property
    def labels(self) -> list[str]:
        """The optimizers in the order of the comparison; variants of one optimizer carry what sets them apart."""
        return list(dict.fromkeys(self.results["label"].tolist()))

    @property
    def fields(self) -> list[str]:
        """What tells the variants of one optimizer apart: the fields of a sweep, in the order of the configuration."""
        asked = self.comparison.get("fields") or FIELDS
        names = [
            name for name in FIELDS if name in self.results and name in asked and name not in ("optimizer", *REPEATED)
        ]
        groups = [rows for _, rows in self.results.groupby("optimizer")]
        return [name for name in names if any(len({str(value) for value in rows[name]}) > 1 for rows in groups)]

    @property
    def baseline(self) -> str:
        """The label that the others are compared with: the comparison's, else plain SGD, else the first."""
        wanted = self.comparison.get("baseline", "sgd")
        named = self.results.loc[self.results["optimizer"] == wanted, "label"].tolist()
        return str(named[0]) if named else self.labels[0]


def read_records(out_dir: Path | str, runs: Collection[str] | None = None) -> Records:
    """Read all whole runs of a store (folders whose names start with a dot are unfinished and are left alone).

    Args:
        out_dir: the store.
        runs: hashes of the runs to read; None for those of ``compare.json``, or all where there is none.

    Raises:
        FileNotFoundError: no run is stored there.
        Damaged: ``compare.json`` cannot be read. A damaged run is left out with a warning.
    """
    out = Path(out_dir)
    comparison = read_json(out / "compare.json", _AGAIN) if (out / "compare.json").is_file() else {}
    wanted = comparison.get("runs") if runs is None else runs
    store = Store(out)
    folders = [store.folder / name for name in store.names()]
    if wanted or runs is not None:
        folders = [folder for folder in folders if folder.name in set(wanted or ())]
    folders = [folder for folder in folders if _whole(store, folder.name)]
    if not folders:
        raise FileNotFoundError(f"no finished run under {out / 'runs'}: run `fenland compare --out {out}` first")
    configs = _filled({folder: read_json(folder / "config.json", _AGAIN) for folder in folders})
    fields = comparison.get("fields") if set(wanted or ()) == set(comparison.get("runs", ())) else None
    labels = _labels(list(configs.values()), fields)
    order = _order(configs, labels, comparison.get("optimizers", ()))
    return Records(
        out=out,
        results=pd.DataFrame([_result_row(folder, configs[folder], labels) for folder in order]),
        metrics=pd.concat([_metric_rows(folder, configs[folder], labels) for folder in order], ignore_index=True),
        environments=tuple(read_json(folder / "environment.json", _AGAIN) for folder in order),
        comparison=comparison,
    )


def _filled(configs: Mapping[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Configurations with the same fields: one that is stored only where it is set has its default elsewhere."""
    every = {name for config in configs.values() for name in config}
    defaults = {name: getattr(RunConfig, name, None) for name in FIELDS if name in every}
    defaults = {name: value for name, value in defaults.items() if FIELDS[name].hashed == WHERE_SET}
    return {folder: {**defaults, **config} for folder, config in configs.items()}


def _whole(store: Store, name: str) -> bool:
    flaw = store.flaw(name)
    if flaw:
        _LOG.warning("left out: the run %s is damaged (%s); %s", store.folder / name, flaw, _AGAIN)
    return not flaw


def _key(config: Mapping[str, Any]) -> str:
    """A configuration without its seed, as text: runs that share it are repetitions of each other."""
    return json.dumps({k: v for k, v in config.items() if k not in REPEATED}, sort_keys=True)


def _labels(configs: Sequence[Mapping[str, Any]], fields: Collection[str] | None = None) -> dict[str, str]:
    """From each configuration's key to its label: the optimizer, and what tells its variants apart.

    ``fields``: those of a sweep. Others that follow from them (a data set's own learning rate) would say it twice.
    """
    labels = {}
    for optimizer in {str(config["optimizer"]) for config in configs}:
        variants = {_key(config): config for config in configs if str(config["optimizer"]) == optimizer}
        names = sorted(
            {name for config in variants.values() for name in config if name not in ("optimizer", *REPEATED)}
        )
        differing = [n for n in names if len({json.dumps(c.get(n)) for c in variants.values()}) > 1]
        if fields is not None:
            differing = [name for name in differing if name in fields]
        for key, config in variants.items():
            apart = ", ".join(f"{name}={config.get(name)}" for name in differing)
            labels[key] = f"{optimizer} ({apart})" if apart else optimizer
    return labels


def _order(
    configs: Mapping[Path, Mapping[str, Any]], labels: Mapping[str, str], optimizers: Sequence[str]
) -> list[Path]:
    """Folders in the comparison's order of optimizers (unlisted ones after, SGD first), then by label and seed."""
    place = {name: index for index, name in enumerate(optimizers)}

    def rank(folder: Path) -> tuple[Any, ...]:
        config = configs[folder]
        name = str(config["optimizer"])
        return place.get(name, len(place)), name != "sgd", labels[_key(config)], config.get("seed", 0), folder.name

    return sorted(configs, key=rank)


def _result_row(folder: Path, config: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    row = {"run": folder.name, "optimizer": str(config["optimizer"]), "label": labels[_key(config)]}
    row["seed"] = config.get("seed", 0)
    row |= {k: v for k, v in config.items() if k not in row}
    for name, value in read_json(folder / "result.json", _AGAIN).items():
        row[f"result_{name}" if name in row else name] = value
    return row


def _metric_rows(folder: Path, config: Mapping[str, Any], labels: Mapping[str, str]) -> pd.DataFrame:
    rows = read_table(folder / "metrics.parquet")
    name = str(config["optimizer"])
    front = {"run": folder.name, "optimizer": name, "label": labels[_key(config)], "seed": config.get("seed", 0)}
    return pd.concat([pd.DataFrame(front, index=rows.index), rows.drop(columns=list(front), errors="ignore")], axis=1)
