"""Reading a store: every whole run under ``OUT/runs`` as two tables, one row a run and one row a run and epoch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

# What a repetition may differ in, and so is no part of a label: the seed, and where the data lay.
REPEATED = ("seed", "data_dir")


@dataclass(frozen=True)
class Records:
    """What a store holds.

    Attributes:
        out: the folder that was read.
        results: one row a run: ``run, optimizer, label, seed``, its configuration and its result (a result whose name
            the configuration also uses is stored as ``result_NAME``).
        metrics: one row a run and epoch: ``run, optimizer, label, seed, epoch`` and what was measured.
        environments: one dictionary a run, in the order of ``results``.
        comparison: ``OUT/compare.json``, or empty.
    """

    out: Path
    results: pd.DataFrame
    metrics: pd.DataFrame
    environments: tuple[dict[str, Any], ...]
    comparison: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """The optimizers in the order of the comparison; variants of one optimizer carry what sets them apart."""
        return list(dict.fromkeys(self.results["label"].tolist()))

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
        ValueError: a stored run cannot be read; the file is named.
    """
    out = Path(out_dir)
    comparison = _read_json(out / "compare.json") if (out / "compare.json").is_file() else {}
    wanted = comparison.get("runs") if runs is None else runs
    folders = sorted(f for f in (out / "runs").glob("*") if f.is_dir() and not f.name.startswith("."))
    if wanted or runs is not None:
        folders = [folder for folder in folders if folder.name in set(wanted or ())]
    if not folders:
        raise FileNotFoundError(f"no finished run under {out / 'runs'}: run `fenland compare --out {out}` first")
    configs = {folder: _read_json(folder / "config.json") for folder in folders}
    fields = comparison.get("fields") if set(wanted or ()) == set(comparison.get("runs", ())) else None
    labels = _labels(list(configs.values()), fields)
    order = _order(configs, labels, comparison.get("optimizers", ()))
    return Records(
        out=out,
        results=pd.DataFrame([_result_row(folder, configs[folder], labels) for folder in order]),
        metrics=pd.concat([_metric_rows(folder, configs[folder], labels) for folder in order], ignore_index=True),
        environments=tuple(_environment(folder) for folder in order),
        comparison=comparison,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"cannot read {path}: expected a JSON object, got {type(content).__name__}")
    return content


def _environment(folder: Path) -> dict[str, Any]:
    path = folder / "environment.json"
    return _read_json(path) if path.is_file() else {}


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
    for name, value in _read_json(folder / "result.json").items():
        row[f"result_{name}" if name in row else name] = value
    return row


def _metric_rows(folder: Path, config: Mapping[str, Any], labels: Mapping[str, str]) -> pd.DataFrame:
    path = folder / "metrics.parquet"
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
        raise ValueError(f"cannot read {path}: {error}") from error
    name = str(config["optimizer"])
    front = {"run": folder.name, "optimizer": name, "label": labels[_key(config)], "seed": config.get("seed", 0)}
    return pd.concat([pd.DataFrame(front, index=rows.index), rows.drop(columns=list(front), errors="ignore")], axis=1)
