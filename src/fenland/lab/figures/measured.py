"""What a curve shows, before anybody draws it: means over the seeds that finished, and the runs that broke off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fenland.lab.store.records import Records
from fenland.lab.store.statistics import bands, finished

# Above this ratio of the largest value to the smallest, a linear axis would show the first epochs only.
LOG_ABOVE = 20.0
# So many curves are told apart in one figure; of more than that these best ones are shown.
MOST, BEST = 8, 5


@dataclass(frozen=True)
class Curve:
    """One measured column, drawn against epochs or against a cost."""

    name: str  # of the files
    column: str  # of the metrics
    title: str  # above the figure, with its unit
    reading: str  # how to read it, one sentence
    unit: float = 1.0  # factor to the axis (100 for per cent)
    decades: bool = False  # whether the axis may become logarithmic
    against: str = "epoch"  # the column of the horizontal axis
    along: str = "epoch"  # name of the horizontal axis


def logarithmic(curve: Curve, values: pd.Series[float]) -> bool:
    """Whether these values need a logarithmic axis: all positive, and over several decades."""
    measured = values[np.isfinite(values)]
    wide = bool(len(measured)) and measured.min() > 0 and measured.max() / measured.min() > LOG_ABOVE
    return bool(curve.decades and wide)


@dataclass(frozen=True)
class Measured:
    """One quantity of a comparison.

    Attributes:
        curve: which.
        log: whether its axis is logarithmic; then the means are geometric.
        means: ``label, epoch, x, mean, low, high, n`` of the finished runs, x being what the curve is drawn against.
        broken: for each label the epochs of its runs that diverged, a table each.
    """

    curve: Curve
    log: bool
    means: pd.DataFrame
    broken: dict[str, list[pd.DataFrame]]


def with_derived(metrics: pd.DataFrame) -> pd.DataFrame:
    """Add the training loss that is shown (measured after the epoch, where it was) and the gap to the test loss."""
    source = "train_eval_loss" if "train_eval_loss" in metrics else "train_loss"
    if source not in metrics or "test_loss" not in metrics:
        return metrics
    return metrics.assign(shown_train_loss=metrics[source], shown_loss_gap=metrics["test_loss"] - metrics[source])


def leading(records: Records) -> list[str]:
    """The labels that one figure of curves can tell apart: all, or of a sweep the best few and the baseline."""
    done = finished(records.results)
    if len(records.labels) <= MOST or "test_accuracy" not in done:
        return records.labels
    best = done.groupby("label")["test_accuracy"].mean().nlargest(BEST).index
    return [label for label in records.labels if label in best or label == records.baseline]


def measured(curve: Curve, records: Records, metrics: pd.DataFrame) -> Measured | None:
    """A curve's means over seeds; None where it was not measured."""
    if curve.column not in metrics or curve.against not in metrics or not metrics[curve.column].notna().any():
        return None
    done = metrics["run"].isin(finished(records.results)["run"])
    log = logarithmic(curve, metrics.loc[done, curve.column].astype(float))
    means = bands(metrics[done], curve.column, geometric=log)
    means["x"] = means["epoch"] if curve.against == "epoch" else along(curve.against, metrics[done], means)
    broken: dict[str, list[pd.DataFrame]] = {}
    for _, run in metrics[~done].groupby("run", sort=False):
        if run[curve.column].notna().any():
            broken.setdefault(str(run["label"].iloc[0]), []).append(run)
    return Measured(curve, log, means, broken)


def along(column: str, metrics: pd.DataFrame, means: pd.DataFrame) -> pd.Series[float]:
    """For each row of ``means`` (``label, epoch``) the mean of a cost over the label's runs at that epoch."""
    cost = metrics.groupby(["label", "epoch"], as_index=False)[[column]].mean(numeric_only=True)
    found: pd.Series[float] = means[["label", "epoch"]].merge(cost, how="left")[column]
    return found
