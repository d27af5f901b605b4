"""Stored runs as a table that is filtered, sorted and exported."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.config import words
from fenland.lab.errors import BadInput, one_of
from fenland.lab.store.files import writing
from fenland.lab.store.runs import Store, StoredRun

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
FORMATS = (".parquet", ".csv")
_CONDITION = re.compile(r"([A-Za-z_][\w-]*)\s*(!=|<=|>=|=|<|>)\s*(.*)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def rows(runs: Sequence[StoredRun]) -> list[Row]:
    """One flat row a run: its hash, configuration and result (``result_NAME`` where the configuration has the name)."""
    found = []
    for run in runs:
        config = run.config.as_dict()
        result = {f"result_{name}" if name in config else name: value for name, value in run.result.items()}
        found.append({"run": run.folder.name, **config, **result})
    # Some results are of some runs alone: a number of noisy labels, where there is label noise.
    every = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in every} for row in found]


def choose(found: Sequence[Row], conditions: Sequence[str]) -> list[Row]:
    """The rows that meet all conditions: ``field=value``, with ``a,b`` and ``0..9`` for several values, ``!=``, and
    ``<``, ``<=``, ``>``, ``>=`` for numbers. ``none`` is no value.
    """
    kept = list(found)
    for text in conditions:
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise BadInput("where", text, "write field=value, field!=value or 'field<number', as in rho=0.05")
        name, sign, wanted = match[1].replace("-", "_"), match[2], match[3].strip()
        _check_field("where", text, name, found)
        if sign in _COMPARE:
            bound = words.number(wanted)
            if math.isnan(bound):
                raise BadInput("where", text, "compare with a number")
            kept = [row for row in kept if _is_number(row[name]) and _COMPARE[sign](row[name], bound)]
        else:
            values = _values(text, wanted)
            kept = [row for row in kept if any(_equal(row[name], value) for value in values) == (sign == "=")]
    return kept


def why_none(found: Sequence[Row], conditions: Sequence[str]) -> str:
    """The first condition that no row meets by itself, with what there is instead; empty where each is met by some."""
    for text in conditions:
        if choose(found, [text]):
            continue
        match = _CONDITION.fullmatch(text.strip())
        name = match[1].replace("-", "_") if match else ""
        there = list(dict.fromkeys(_shown(row[name]) for row in found))
        more = f", ... ({len(there)} values)" if len(there) > 8 else ""
        return f"no run has {text.strip()}; {name} is {', '.join(there[:8])}{more}"
    return ""


def _shown(value: object) -> str:
    return "none" if _missing(value) else str(value)


def order(found: Sequence[Row], field: str, descending: bool = False) -> list[Row]:
    """The rows by a field; those without a value come last."""
    name = field.replace("-", "_")
    _check_field("sort", field, name, found)
    there = [row for row in found if not _missing(row[name])]
    there.sort(key=lambda row: (row[name] if _is_number(row[name]) else math.inf, str(row[name])), reverse=descending)
    return [*there, *(row for row in found if _missing(row[name]))]


def find(store: Store, prefix: str) -> StoredRun:
    """The one run whose hash begins so.

    Raises:
        BadInput: none does, or several do.
    """
    matching = [name for name in store.names() if name.startswith(prefix.lower())]
    if len(matching) != 1:
        cure = f"{len(matching)} runs begin so: {', '.join(matching[:5])}" if matching else "no stored run begins so"
        raise BadInput("show", prefix, cure)
    return store.load(matching[0])


def epochs(runs: Sequence[StoredRun]) -> pandas.DataFrame:
    """One row a run and epoch: the run's hash, optimizer, rho and seed, and what was measured."""
    import pandas

    tables = []
    for run in runs:
        table = run.metrics()
        front = {"run": run.folder.name, "optimizer": run.config.optimizer, "rho": run.config.rho}
        for name, value in reversed({**front, "seed": run.config.seed}.items()):
            table.insert(0, name, value)
        tables.append(table)
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()


def export(table: pandas.DataFrame, path: Path) -> None:
    """Write a table as parquet or CSV, by the ending of the name: whole, then renamed."""
    if path.suffix not in FORMATS:
        raise BadInput("export", path, f"the name must end in {' or '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise BadInput("export", path, "its directory does not exist")
    with writing(path) as file:
        if path.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)


def frame(found: Sequence[Row]) -> pandas.DataFrame:
    """Rows as a table; what is a list in them becomes JSON text, since CSV knows no lists."""
    import pandas

    plain = [
        {name: json.dumps(value) if isinstance(value, (list, tuple)) else value for name, value in row.items()}
        for row in found
    ]
    return pandas.DataFrame(plain)


def _check_field(argument: str, text: str, name: str, found: Sequence[Row]) -> None:
    if found and name not in found[0]:
        raise BadInput(argument, text, f"no such field; {one_of(found[0], name)}")


def _values(shown: str, text: str) -> list[str]:
    try:
        return words.expand(text)
    except ValueError as error:
        raise BadInput("where", shown, str(error)) from None


def _equal(value: Any, text: str) -> bool:
    if _missing(value):
        return text.lower() in (*words.NONE, "nan", "-")
    if isinstance(value, bool):
        return words.SWITCH.get(text.lower()) is value
    if _is_number(value):
        return bool(value == words.number(text))
    if isinstance(value, (list, tuple)):
        return text in value or text == " ".join(map(str, value))
    return str(value) == text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _missing(value: Any) -> bool:
    return value is None or value == () or (isinstance(value, float) and math.isnan(value))
