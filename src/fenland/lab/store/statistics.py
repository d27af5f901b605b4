"""Means and 95 % Student-t intervals over seeds, and paired differences against a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from fenland.lab.store.records import Records, read_records

CONFIDENCE = 0.95
# Each becomes three columns of the summary: the mean under its own name, and NAME_low, NAME_high.
MEASURED = ("test_accuracy", "test_loss", "train_accuracy", "train_loss", "loss_gap", "accuracy_gap")
# The last epoch's value, averaged over seeds, under the name final_NAME.
LAST_EPOCH = ("sharpness", "gamma", "grad_norm", "ascent_grad_norm")
PAIRED = ("test_accuracy", "test_loss", "loss_gap")


class Interval(NamedTuple):
    """A mean with its 95 % interval, from ``low`` to ``high``, over ``n`` values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero. A zero-width one (seeds agree exactly) shows nothing."""
        return (self.low > 0 or self.high < 0) and self.high - self.low > 1e-12


def interval(values: Iterable[float]) -> Interval:
    """The mean of some values with its 95 % interval.

        mean ± t(0.975, n - 1) * s / sqrt(n)

    This is Student's interval with the standard deviation s; t is 12.7 for n = 2, 4.3 for 3 and 2.8 for 5.

    Args:
        values: one for each seed. Those that are NaN or infinite are left out, and ``n`` counts the rest.

    Returns:
        The interval. With n = 1 its bounds are NaN, with n = 0 its mean too.
    """
    numbers = np.asarray([value for value in values if value is not None], dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    half = half_width(float(numbers.std(ddof=1)), numbers.size) if numbers.size > 1 else math.nan
    mean = float(numbers.mean())
    return Interval(mean, mean - half, mean + half, int(numbers.size))


def half_width(deviation: float, n: int) -> float:
    """Half the width of the interval, from the sample standard deviation of ``n`` values; NaN for n < 2."""
    return float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * deviation / math.sqrt(n) if n > 1 else math.nan


def bands(metrics: pd.DataFrame, column: str, geometric: bool = False) -> pd.DataFrame:
    """One row per label and epoch: ``label, epoch, mean, low, high, n`` of a measured column, over seeds.

    Epochs at which nothing was measured are left out. ``geometric``: mean and interval of the logarithms, taken back
    (for positive values on a logarithmic axis, where an arithmetic interval would often reach below zero).
    """
    rows = []
    for (label, epoch), values in metrics.groupby(["label", "epoch"], sort=False)[column]:
        numbers = values.astype(float)
        found = interval(np.log(numbers) if geometric else numbers)
        if found.n:
            rows.append({"label": label, "epoch": epoch, **found._asdict()})
    table = pd.DataFrame(rows, columns=["label", "epoch", "mean", "low", "high", "n"])
    bounds = ["mean", "low", "high"]
    return table.assign(**{name: np.exp(table[name].astype(float)) for name in bounds}) if geometric else table


def paired(results: pd.DataFrame, label: str, baseline: str, column: str = "test_accuracy") -> Interval:
    """The interval of ``label`` minus ``baseline`` over the seeds that both finished (a paired t-interval).

    Equal seeds share the split, the initial weights and the order of batches, so that their differences vary less than
    the runs themselves.
    """
    if column not in results:
        return interval([])
    done = finished(results)
    ours, theirs = (done[done["label"] == name].set_index("seed")[column] for name in (label, baseline))
    return interval((ours.astype(float) - theirs.astype(float)).dropna())


def finished(results: pd.DataFrame) -> pd.DataFrame:
    """The runs that reached their end; means are taken over these alone, and diverged runs are counted beside."""
    return results if "status" not in results else results[results["status"] == "finished"]


def summary(source: Path | str | Records) -> pd.DataFrame:
    """One row per optimizer, in the comparison's order.

    Columns: ``optimizer`` (its label), ``n`` (finished seeds), ``diverged``; for each of ``test_accuracy, test_loss,
    train_accuracy, train_loss, loss_gap, accuracy_gap`` the mean, ``NAME_low`` and ``NAME_high``; ``seconds``,
    ``relative_time`` (to the baseline), ``gradient_evaluations``; the last epoch's ``final_sharpness``, ``final_gamma``
    …; ``baseline`` (whom it is compared with), and for test accuracy, test loss and loss gap the paired difference
    ``NAME_difference``, ``…_low``, ``…_high``, with ``pairs`` seeds in common. NaN where undefined.
    """
    records = source if isinstance(source, Records) else read_records(source)
    table = pd.DataFrame([_row(records, label) for label in records.labels])
    base_seconds = table.loc[table["optimizer"] == records.baseline, "seconds"].iloc[0]
    table["relative_time"] = table["seconds"] / base_seconds
    return table


def _row(records: Records, label: str) -> dict[str, object]:
    runs = records.results[records.results["label"] == label]
    done = finished(runs)
    row: dict[str, object] = {"optimizer": label, "n": len(done), "diverged": len(runs) - len(done)}
    for name in MEASURED:
        row |= _columns(name, interval(done[name]) if name in done else interval([]))
    for name in ("seconds", "gradient_evaluations", "parameters"):
        row[name] = interval(done[name]).mean if name in done else math.nan
    for name in LAST_EPOCH:
        row[f"final_{name}"] = interval(_last(records.metrics, done, name)).mean
    row |= {"baseline": records.baseline, "pairs": 0}
    for name in PAIRED:
        same = label == records.baseline
        found = interval([]) if same else paired(records.results, label, records.baseline, name)
        row |= _columns(f"{name}_difference", found)
        row["pairs"] = max(found.n, int(str(row["pairs"])))
    return row


def _columns(name: str, found: Interval) -> dict[str, object]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _last(metrics: pd.DataFrame, runs: pd.DataFrame, column: str) -> list[float]:
    """What ``column`` was at the last epoch of each of these runs."""
    if column not in metrics:
        return []
    rows = metrics[metrics["run"].isin(runs["run"])]
    return [float(group[column].iloc[-1]) for _, group in rows.groupby("run", sort=False)]
