"""Which figures a comparison has, and what each of them says in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.curves import draw_curve, first_shown
from fenland.lab.figures.heat import heat_maps
from fenland.lab.figures.intervals import draw_intervals
from fenland.lab.figures.measured import Curve, Measured, leading, measured, with_derived
from fenland.lab.figures.style import title_of
from fenland.lab.store.records import Records
from fenland.lab.store.statistics import finished

PERCENT = 100.0
CURVES = (
    Curve("test_accuracy", "test_accuracy", "Test accuracy, %", "Higher is better.", PERCENT),
    Curve("test_loss", "test_loss", "Test loss", "Lower is better.", decades=True),
    Curve("train_loss", "shown_train_loss", "Training loss", "How closely the training data are fitted.", decades=True),
    Curve("loss_gap", "shown_loss_gap", "Generalisation gap: test loss − training loss", "Lower is better."),
    Curve("gamma", "gamma", "Gamma = ‖g‖ / ‖h‖", "Below 1 where the gradient grows on the way to the ascent point."),
    Curve(
        "sharpness", "sharpness", "Sharpness = L(w+e) − L(w)",
        "How far the loss rises at the ascent point; to be compared only between perturbations of the same length "
        "(USAM's shrinks with the gradient).", decades=True,
    ),
    Curve(
        "largest_eigenvalue", "largest_eigenvalue", "Largest eigenvalue of the Hessian, on a probe batch",
        "Gradient descent with step eta is stable below 2 / eta.", decades=True,
    ),
    Curve(
        "smallest_eigenvalue", "smallest_eigenvalue", "Smallest eigenvalue of the Hessian, on a probe batch",
        "Below zero the loss curves downwards: a saddle, or its neighbourhood.",
    ),
    Curve(
        "cost_evaluations", "test_accuracy", "Test accuracy, %, against gradient evaluations",
        "SAM and its relatives pay two gradients a step, so one epoch costs them twice as much: compare along a "
        "vertical line. Each schedule ends with its own last epoch, so a curve's middle is not a shorter training.",
        PERCENT, against="gradient_evaluations", along="gradient evaluations",
    ),
    Curve(
        "cost_seconds", "test_accuracy", "Test accuracy, %, against seconds of training",
        "The same with the measured time, which depends on the machine and on what else it did.",
        PERCENT, against="seconds", along="seconds",
    ),
)  # fmt: skip


def draw_all(records: Records) -> list[Drawn]:
    """Every figure of a comparison for which something was measured.

    Args:
        records: the runs of the comparison.
    """
    shown = leading(records)
    left_out = len(records.labels) - len(shown)
    metrics = with_derived(records.metrics)
    metrics = metrics[metrics["label"].isin(shown)] if left_out else metrics
    curves = [_curve(found, left_out) for curve in CURVES if (found := measured(curve, records, metrics))]
    first = [figure for figure in (_final(records), _difference(records)) if figure is not None]
    return [*first, *heat_maps(records), *curves]


def _curve(found: Measured, left_out: int) -> Drawn:
    curve = found.curve
    return Drawn(
        curve.name,
        curve.title,
        " ".join([curve.reading, *_remarks(found, left_out)]),
        _describe(curve, found.means),
        lambda canvas: draw_curve(found, canvas),
    )


def _remarks(found: Measured, left_out: int) -> list[str]:
    remarks = ["Logarithmic axis, geometric means over seeds."] if found.log else []
    if left_out:
        remarks.append(f"The settings with the highest accuracy and the baseline; {left_out} others are left out.")
    if len(found.means) and first_shown(found.means, found.curve) > found.means["mean"].min():
        remarks.append("The first epochs lie below the axis.")
    if found.broken:
        remarks.append("Thin lines that end in a cross are runs that diverged; the means leave them out.")
    return remarks


def _describe(curve: Curve, means: pd.DataFrame) -> str:
    parts = []
    for label, rows in means.groupby("label", sort=False):
        last = rows.iloc[-1]
        mean, low, high = (f"{float(last[name]) * curve.unit:.4g}" for name in ("mean", "low", "high"))
        spread = f" (95 % interval {low} to {high})" if np.isfinite(last["low"]) else ""
        parts.append(f"{title_of(str(label))} {mean}{spread}")
    along = "" if curve.against != "epoch" else ", by epoch"
    return f"{curve.title}{along}. At the last epoch: {'; '.join(parts) or 'no finished run'}."


def _final(records: Records) -> Drawn | None:
    done = finished(records.results)
    if "test_accuracy" not in done or not done["test_accuracy"].notna().any():
        return None
    values = {
        label: (rows["test_accuracy"].astype(float) * PERCENT).tolist()
        for label, rows in done.groupby("label", sort=False)
    }
    title = "Final test accuracy, %"
    words = "; ".join(f"{title_of(str(label))} {np.mean(numbers):.2f}" for label, numbers in values.items())
    return Drawn(
        "final_accuracy",
        title,
        "Rings are seeds, dots their means, bars the 95 % interval of the mean.",
        f"{title}. Means over seeds: {words}.",
        lambda canvas: draw_intervals(title, "test accuracy, %", canvas, {str(k): v for k, v in values.items()}),
    )


def _difference(records: Records) -> Drawn | None:
    done = finished(records.results)
    if "test_accuracy" not in done:
        return None
    by_seed = done.pivot(index="seed", columns="label", values="test_accuracy").astype(float) * PERCENT
    if records.baseline not in by_seed:
        return None
    gains = by_seed.sub(by_seed[records.baseline], axis=0)
    others = [name for name in records.labels if name != records.baseline and name in gains]
    values = {name: gains[name].dropna().tolist() for name in others if gains[name].notna().any()}
    if not values:
        return None
    base = title_of(records.baseline)
    title = f"Accuracy gained over {base}, percentage points"
    words = "; ".join(f"{title_of(label)} {np.mean(numbers):+.2f}" for label, numbers in values.items())
    return Drawn(
        "difference",
        title,
        f"Each ring is one seed minus {base} with the same seed. A bar that crosses zero leaves open who wins.",
        f"{title}. Means over shared seeds: {words}.",
        lambda canvas: draw_intervals(title, f"points against {base}", canvas, values, zero=base),
    )
