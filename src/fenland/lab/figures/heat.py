"""A sweep as a map: the accuracy that every pair of two settings reached."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import draw_heat, plain_number
from fenland.lab.figures.style import title_of
from fenland.lab.store.records import Records
from fenland.lab.store.statistics import finished

_FIRST = ("lr", "rho")  # where a sweep has them, they span the map: the learning rate lies, the radius stands
_NAMES = {"lr": "learning rate", "rho": "rho"}


def heat_maps(records: Records) -> list[Drawn]:
    """One map for each optimizer that was run with several values of two fields that are numbers."""
    done = finished(records.results)
    if "test_accuracy" not in done:
        return []
    groups = [(str(name), rows) for name, rows in done.groupby("optimizer", sort=False)]
    drawn = [_map(name, rows, _pair(rows, records.fields), records.fields) for name, rows in groups]
    return [each for each in drawn if each is not None]


def _pair(rows: pd.DataFrame, fields: list[str]) -> list[str]:
    """The two fields that span the map: learning rate and radius, else those with the most values."""
    numbers = [name for name in fields if pd.api.types.is_numeric_dtype(rows[name]) and rows[name].nunique() > 1]
    numbers.sort(key=lambda name: (name not in _FIRST, -len(set(rows[name]))))
    return sorted(numbers[:2], key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _map(optimizer: str, rows: pd.DataFrame, pair: list[str], fields: list[str]) -> Drawn | None:
    if len(pair) < 2:
        return None
    x, y = pair
    rest = [name for name in fields if name not in pair and rows[name].nunique(dropna=False) > 1]
    settings = rows.groupby([*pair, *rest], dropna=False)["test_accuracy"].mean().mul(100).reset_index()
    cells = settings.pivot_table(index=y, columns=x, values="test_accuracy", aggfunc="max")
    best: Any = settings.nlargest(1, "test_accuracy").iloc[0]
    who = title_of(optimizer)
    title = f"{who}: test accuracy, %, by {_named(x)} and {_named(y)}"
    where = ", ".join(f"{_named(name)} {plain_number(float(best[name]))}" for name in pair)
    free = f" For each pair the best over {', '.join(map(_named, rest))}." if rest else ""
    return Drawn(
        f"heat_{optimizer}",
        title,
        f"Means over seeds.{free} A blank cell was not run, or every run of it diverged.",
        f"{title}. The best is {best['test_accuracy']:.2f} at {where}; the worst cell has {np.nanmin(cells):.2f}.",
        lambda canvas: draw_heat(
            canvas, title, cells.columns, cells.index, cells.to_numpy(float), along=_named(x), up=_named(y),
            log_x=_even(cells.columns), log_y=_even(cells.index),
        ),
    )  # fmt: skip


def _named(field: str) -> str:
    return _NAMES.get(field, field.replace("_", " "))


def _even(values: Any) -> bool:
    """Whether a logarithmic axis spreads these values better than a linear one."""
    numbers = [float(value) for value in values]
    return min(numbers) > 0 and max(numbers) / min(numbers) > 3 and math.isfinite(max(numbers))
