"""What the page's own charts draw: means and single seeds of every curve, and a sweep's settings, as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from fenland.lab.figures.comparison import CURVES, PERCENT
from fenland.lab.figures.measured import Measured, along, leading, measured, with_derived
from fenland.lab.figures.plots import COLOURS
from fenland.lab.figures.style import title_of
from fenland.lab.report.setup import named
from fenland.lab.store.records import Records
from fenland.lab.store.statistics import finished, summary

# What a curve can be drawn against.
ALONG = (
    ("epoch", "epoch"), ("gradient_evaluations", "gradient evaluations"), ("seconds", "seconds of training"),
)  # fmt: skip
# Of a setting: column of the summary, title, factor, digits, whether the largest is best.
OF_A_SETTING = (
    ("test_accuracy", "Test accuracy, %", 100.0, 2, True), ("test_loss", "Test loss", 1.0, 4, False),
    ("loss_gap", "Loss gap", 1.0, 4, False), ("seconds", "Training time, s", 1.0, 1, False),
)  # fmt: skip
# Beyond so many numbers of single seeds the page keeps to the means.
MOST = 400_000
_SHADES = 9


def document(records: Records) -> dict[str, Any]:
    """The curves, and the settings of a sweep; everything that the page's script reads."""
    metrics = with_derived(records.metrics)
    found = [each for curve in CURVES if curve.against == "epoch" and (each := measured(curve, records, metrics))]
    axes = [(name, title) for name, title in ALONG if name in metrics]
    seeds = len(metrics) * len(found) <= MOST
    return {
        "labels": [title_of(label) for label in records.labels],
        "shown": [records.labels.index(label) for label in leading(records)],
        "along": [{"name": name, "title": title} for name, title in axes],
        "quantities": [
            {
                "title": each.curve.title,
                "reading": each.curve.reading,
                "log": each.log,
                "ceiling": each.curve.unit if each.curve.unit == PERCENT else None,
            }
            for each in found
        ],
        "means": [_means(label, records, metrics, found, axes) for label in records.labels],
        "runs": [_run(rows, records, found, axes) for _, rows in metrics.groupby("run", sort=False)] if seeds else [],
        "settings": settings(records),
    }


def _means(
    label: str, records: Records, metrics: pd.DataFrame, found: Sequence[Measured], axes: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """A label's epochs and costs, and for each quantity mean and interval at them."""
    done = metrics[metrics["run"].isin(finished(records.results)["run"]) & (metrics["label"] == label)]
    grid = done[["label", "epoch"]].drop_duplicates().sort_values("epoch")
    values = []
    for each in found:
        rows = grid.merge(each.means[["label", "epoch", "mean", "low", "high"]], how="left")
        values.append({name: plain(rows[name] * each.curve.unit) for name in ("mean", "low", "high")})
    places = {name: plain(grid["epoch"] if name == "epoch" else along(name, done, grid)) for name, _ in axes}
    return {"along": places, "values": values}


def _run(
    rows: pd.DataFrame, records: Records, found: Sequence[Measured], axes: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    first = rows.iloc[0]
    return {
        "label": records.labels.index(first["label"]),
        "seed": int(first["seed"]),
        "run": str(first["run"])[:8],
        "broken": first["run"] not in set(finished(records.results)["run"]),
        "along": {name: plain(rows[name]) for name, _ in axes},
        "values": [plain(rows[each.curve.column].astype(float) * each.curve.unit) for each in found],
    }


def settings(records: Records) -> dict[str, Any] | None:
    """A sweep: its fields with their values, and a row a setting; None where no optimizer was run with several."""
    if not records.fields:
        return None
    names = ["optimizer", *records.fields]
    first = records.results.groupby("label", sort=False).first()
    levels = {name: _levels(first[name]) for name in names}
    rows = [{str(k): v for k, v in row.items()} for row in summary(records).to_dict("records")]
    return {
        "fields": [{"title": named(name), "values": [_word(name, v) for v in levels[name]]} for name in names],
        "quantities": [
            {"title": title, "digits": digits, "most": most} for _, title, _, digits, most in OF_A_SETTING
        ],
        "rows": [
            {
                "title": title_of(row["optimizer"]),
                "at": [levels[name].index(_level(first.loc[row["optimizer"], name])) for name in names],
                "n": row["n"],
                "diverged": row["diverged"],
                "values": [
                    plain(factor * row.get(key, math.nan) for key in (name, f"{name}_low", f"{name}_high"))
                    for name, _, factor, *_ in OF_A_SETTING
                ],
            }
            for row in rows
        ],
        "colours": [to_hex(colormaps[COLOURS](shade / (_SHADES - 1))) for shade in range(_SHADES)],
    }  # fmt: skip


def _levels(values: pd.Series[Any]) -> list[Any]:
    """The values of a field, numbers in their order, what is not set first."""
    there = list(dict.fromkeys(map(_level, values)))
    if all(value is None or isinstance(value, (int, float)) for value in there):
        there.sort(key=lambda value: (value is not None, value or 0))
    return there


def _level(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return None if missing else value.item() if hasattr(value, "item") else value


def _word(field: str, value: Any) -> str:
    if value is None:
        return "none"
    return title_of(value) if field == "optimizer" else f"{value:g}" if isinstance(value, float) else str(value)


def plain(values: Any) -> list[float | None]:
    """Numbers of five digits; what is not finite is null."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in map(float, values)]
