"""Figure and verdicts of the study `ball-metric`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.intervals import draw_intervals
from fenland.lab.figures.plots import Panel, draw_panels
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.studies.ball_metric import EUCLID, KINDS, MATCHED, SIGN, STRETCHED
from fenland.lab.study.base import Tables, Verdict
from fenland.lab.study.investigations import curve, failed, remarks, spoken
from fenland.lab.study.trained import above, below, paired, shown, together

if TYPE_CHECKING:
    import pandas as pd

    from fenland.lab.studies.ball_metric import BallMetricConfig

FIGURE = "Investigations on SAM, section III-B and Fig. 3"
WORDS = {
    SIGN: "rho along the gradient's sign",
    STRETCHED: "the gradient over its largest element, as in the report's code",
}


def judge(config: BallMetricConfig, tables: Tables) -> list[Verdict]:
    """All verdicts."""
    return [
        *(_worse(config, tables, kind) for kind in (SIGN, STRETCHED)),
        _longer(config, tables),
        _shape(config, tables),
        _length(config, tables),
    ]


def _worse(config: BallMetricConfig, tables: Tables, kind: str) -> Verdict:
    gap = _gap(tables, kind, EUCLID)
    return Verdict(
        f"At the same rho, the L-infinity ball ({WORDS[kind]}) gives a lower test accuracy than the L2 ball.",
        FIGURE,
        "a difference below 0",
        f"{shown(gap, '.2f')} points",
        config.only_if_decided(below(gap)),
        remarks(tables, config.why(), f"Paired over seeds. {_failures(tables['runs'], kind)}".strip()),
        "final",
    )


def _longer(config: BallMetricConfig, tables: Tables) -> Verdict:
    first = tables["epochs"][tables["epochs"]["epoch"] == 1]
    wide = first.pivot_table(index="seed", columns="kind", values="length", dropna=False)
    ratios = {
        kind: interval(wide[kind].astype(float) / wide[EUCLID].astype(float) if kind in wide else [])
        for kind in (SIGN, STRETCHED)
    }
    return Verdict(
        f"At rho {config.rho:g} both L-infinity perturbations are far longer than the L2 one, in the Euclidean norm.",
        "ours: sqrt(n) for the sign, the ratio of the gradient's norms for the other",
        "more than 2 times",
        "; ".join(f"{kind}: {_times(found)}" for kind, found in ratios.items()),
        together(_more(found) for found in ratios.values()),
        remarks(tables, f"About {config.here()}.", "In the first epoch; one number where the seeds agree exactly."),
        "curves",
    )


def _shape(config: BallMetricConfig, tables: Tables) -> Verdict:
    gap = _gap(tables, MATCHED, EUCLID)
    return Verdict(
        "At the same Euclidean length, too, the L-infinity ball gives a lower test accuracy than the L2 ball.",
        "ours: what the report's explanation, that signs tell less of the landscape, would mean",
        "a difference below 0",
        f"{shown(gap, '.2f')} points",
        below(gap),
        remarks(
            tables, f"About {config.here()}; the report did not run it.",
            f"Paired over seeds. {_failures(tables['runs'], MATCHED)}".strip(),
        ),
        "final",
    )  # fmt: skip


def _length(config: BallMetricConfig, tables: Tables) -> Verdict:
    gap = _gap(tables, MATCHED, SIGN)
    return Verdict(
        "The sign step gains test accuracy when it is shortened to the L2 step's length.",
        "ours",
        "a difference above 0",
        f"{shown(gap, '.2f')} points",
        above(gap),
        remarks(tables, f"About {config.here()}.", f"Paired over seeds. {_failures(tables['runs'], SIGN)}".strip()),
        "final",
    )


def _gap(tables: Tables, ours: str, theirs: str) -> Interval:
    runs = tables["runs"]
    return paired(runs.assign(percent=100 * runs["test_accuracy"].astype(float)), "kind", ours, theirs, "percent")


def _failures(runs: pd.DataFrame, kind: str) -> str:
    part = runs[runs["kind"] == kind]
    count = int(failed(part).sum())
    return f"{count} of {len(part)} runs ({kind}) end no better than guessing." if count else ""


def _more(found: Interval, bound: float = 2.0) -> bool | None:
    """Equal lengths at every seed leave an interval without width, which is an answer here."""
    return found.mean > bound if found.n and not math.isfinite(found.low) else above(found, bound)


def _times(found: Interval) -> str:
    same = found.n > 1 and found.high - found.low <= 1e-6 * abs(found.mean)
    return f"{found.mean:.4g} times" if same else f"{shown(found, '.4g', sign=False)} times"


def draw(config: BallMetricConfig, tables: Tables) -> list[Drawn]:
    """Accuracies at the end, and curves."""
    return [_final(config, tables), _curves(config, tables)]


def _final(config: BallMetricConfig, tables: Tables) -> Drawn:
    runs = tables["runs"]
    values = {kind: list(100 * runs.loc[runs["kind"] == kind, "test_accuracy"].astype(float)) for kind in KINDS}
    title = "Test accuracy at the end, %"
    words = "; ".join(f"{kind}: {interval(numbers).mean:.2f}" for kind, numbers in values.items())
    return Drawn(
        "final", title,
        f"{config.model}, {config.here()}, rho = {config.rho:g}; matched: rho / √n. Rings are seeds, dots their means, "
        f"bars the 95 % interval of the mean. {remarks(tables)}".strip(),
        f"{title}. Means over seeds: {words}.",
        lambda canvas: draw_intervals(title, "test accuracy, %", canvas, values), KINDS,
    )  # fmt: skip


def _curves(config: BallMetricConfig, tables: Tables) -> Drawn:
    groups = {kind: tables["epochs"][tables["epochs"]["kind"] == kind] for kind in KINDS}
    accuracy = [curve(kind, part, "test_accuracy", 100.0) for kind, part in groups.items()]
    loss, length = ([curve(kind, part, name) for kind, part in groups.items()] for name in ("test_loss", "length"))
    panels = [
        Panel(accuracy, "epoch", "Test accuracy, %", whole=True),
        Panel(loss, "epoch", "Test loss (cross-entropy)", log_y=True, whole=True),
        Panel(length, "epoch", "Euclidean length of the perturbation", log_y=True, whole=True),
    ]
    title = "Accuracy, loss and length by epoch"
    return Drawn(
        "curves", title, f"{config.model}, {config.here()}. Means over seeds, bands are 95 % intervals.",
        f"{title}. At the last epoch, accuracy in per cent: {spoken(accuracy, 4)}. Test loss: {spoken(loss)}. Length: "
        f"{spoken(length)}.",
        lambda canvas: draw_panels(canvas, title, panels), KINDS,
    )  # fmt: skip
