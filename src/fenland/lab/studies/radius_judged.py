"""Table, figures and verdicts of the study `radius`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.intervals import draw_intervals
from fenland.lab.figures.plots import Mark, Panel, draw_panels
from fenland.lab.store.statistics import Interval, half_width, interval
from fenland.lab.study.base import Sheet, Tables, Verdict
from fenland.lab.study.investigations import curve, remarks, spoken
from fenland.lab.study.trained import above, below, lossy, paired, shown, together

if TYPE_CHECKING:
    from fenland.lab.studies.radius import RadiusConfig

TABLE = "Investigations on SAM, Table I"
READINGS = {"test_loss": "cross-entropy", "smoothed_loss": "divergence from smoothed labels"}
FALLS = (0.3, 0.6, 0.8)  # shares of the epochs after which the learning rate falls to a fifth
DROPS = FALLS[:2]  # where the report saw the loss drop


class Published(NamedTuple):
    """A row of Table I: means and standard deviations over three seeds."""

    accuracy: float
    accuracy_std: float
    loss: float
    loss_std: float


PUBLISHED = {
    0.01: Published(0.9689, 0.0007, 0.0729, 0.0017),
    0.05: Published(0.9717, 0.0007, 0.0675, 0.0011),
    0.1: Published(0.9710, 0.0008, 0.0695, 0.0007),
    0.5: Published(0.9559, 0.0007, 0.1143, 0.0014),
}
SEEDS = 3  # of the report
BEST, WORST = 0.05, 0.5


def judge(config: RadiusConfig, tables: Tables) -> list[Verdict]:
    """All verdicts that the configured radii allow."""
    rhos = set(config.rhos)
    verdicts = []
    if BEST in rhos:
        verdicts.append(_best(config, tables))
    if WORST in rhos:
        verdicts.append(_worst(config, tables))
    if {BEST, WORST} <= rhos:
        verdicts += [_loss(config, tables, column) for column in READINGS]
        if len([rho for rho in rhos if rho < WORST]) > 1:
            verdicts.append(_insensitive(config, tables))
        verdicts.append(_slower(config, tables))
    verdicts.append(_drops(config, tables))
    if rhos & set(PUBLISHED):
        verdicts += [_values(config, tables, column) for column in ("test_accuracy", *READINGS)]
    return verdicts


def _best(config: RadiusConfig, tables: Tables) -> Verdict:
    gaps = _against(config, tables["runs"], BEST, "test_accuracy", 100.0)
    return Verdict(
        f"Test accuracy is highest at rho = {BEST:g}.",
        TABLE,
        "; ".join(
            f"{100 * (PUBLISHED[BEST].accuracy - PUBLISHED[rho].accuracy):+.2f} points over {rho:g}"
            for rho in gaps
            if rho in PUBLISHED
        )
        or "a difference above 0 from each",
        _gaps(gaps, "points over"),
        config.only_if_decided(together(above(gap) for gap in gaps.values())),
        remarks(tables, config.why(), "Paired over seeds."),
        "final",
    )


def _worst(config: RadiusConfig, tables: Tables) -> Verdict:
    gaps = _against(config, tables["runs"], WORST, "test_accuracy", 100.0)
    return Verdict(
        f"Test accuracy is lowest at rho = {WORST:g}.",
        TABLE,
        "; ".join(
            f"{100 * (PUBLISHED[WORST].accuracy - PUBLISHED[rho].accuracy):+.2f} points against {rho:g}"
            for rho in gaps
            if rho in PUBLISHED
        )
        or "a difference below 0 from each",
        _gaps(gaps, "points against"),
        config.only_if_decided(together(below(gap) for gap in gaps.values())),
        remarks(tables, config.why(), "Paired over seeds."),
        "final",
    )


def _loss(config: RadiusConfig, tables: Tables, column: str) -> Verdict:
    low = _against(config, tables["runs"], BEST, column)
    high = _against(config, tables["runs"], WORST, column)
    answer = together([*(below(gap) for gap in low.values()), *(above(gap) for gap in high.values())])
    return Verdict(
        f"The test loss ({READINGS[column]}) is lowest at rho = {BEST:g} and highest at rho = {WORST:g}.",
        TABLE,
        "; ".join(f"{row.loss:.4f} at {rho:g}" for rho, row in PUBLISHED.items()),
        f"{BEST:g}: {_gaps(low, 'against', '.4f')}. {WORST:g}: {_gaps(high, 'against', '.4f')}",
        config.only_if_decided(answer),
        remarks(tables, config.why(), "Paired over seeds; diverged runs have no loss and are left out."),
        "curves",
    )


def _insensitive(config: RadiusConfig, tables: Tables) -> Verdict:
    wide = tables["runs"].pivot_table(index="seed", columns="rho", values="test_accuracy")
    small = [rho for rho in config.rhos if rho < WORST and rho in wide]
    spread = 100 * (wide[small].max(axis=1) - wide[small].min(axis=1))
    fall = 100 * (wide[BEST] - wide[WORST])
    found = interval(fall - spread)
    return Verdict(
        f"Among radii below {WORST:g} the accuracy hardly depends on rho: their spread is less than the fall to "
        f"{WORST:g}.",
        "Investigations on SAM, section II-B and Table I",
        "a spread of 0.28 points, a fall of 1.58",
        f"spread {shown(interval(spread), '.2f', sign=False)} points, fall {shown(interval(fall), '.2f')}, fall less "
        f"spread {shown(found, '.2f')}",
        config.only_if_decided(above(found)),
        remarks(tables, config.why(), "Spread: the largest accuracy less the smallest, each seed by itself."),
        "final",
    )


def _slower(config: RadiusConfig, tables: Tables) -> Verdict:
    runs = tables["runs"].assign(log=tables["runs"]["train_loss"].astype(float).map(_log))
    gap = paired(runs, "rho", WORST, BEST, "log")
    ratio = Interval(math.exp(gap.mean), math.exp(gap.low), math.exp(gap.high), gap.n)
    return Verdict(
        f"A large radius slows the descent itself: at the end the training loss is higher at rho = {WORST:g} than at "
        f"{BEST:g}.",
        "Investigations on SAM, section II-B, its hypothesis; the training loss as its measure is ours",
        "a ratio of the losses above 1",
        f"{shown(ratio, '.3g', sign=False)} times",
        above(ratio, 1.0),
        remarks(
            tables, f"About {config.here()}.",
            "Cross-entropy without smoothing on all train images, in evaluation mode; geometric mean, paired over "
            "seeds. It says how the numbers lie, not that steps out of the minimum are the cause.",
        ),
        "curves",
    )  # fmt: skip


def _drops(config: RadiusConfig, tables: Tables) -> Verdict:
    """A drop is sudden where the fall of the loss at the mark is the largest within a tenth of the epochs around."""
    reach = max(2, round(config.epochs / 10))
    marks = [math.ceil(share * config.epochs) for share in DROPS]
    found = []
    for _, run in tables["epochs"].groupby("run"):
        change = run.set_index("epoch")["test_loss"].astype(float).diff()
        for mark in marks:
            near = change.reindex(range(mark + 1 - reach, mark + 2 + reach))
            found.append(bool(near.idxmin() == mark + 1) if near.notna().any() else False)
    hits = interval([float(hit) for hit in found])
    return Verdict(
        "In most runs the test loss drops suddenly where the learning rate falls, at 30 and 60 % of the epochs.",
        "Investigations on SAM, section II-B and Fig. 1",
        "the largest fall around, in more than half of the cases",
        f"{sum(found)} of {len(found)} cases",
        config.only_if_decided(hits.mean > 1 / 2) if config.schedule == "step" else None,
        remarks(
            tables, config.why(), f"Around: {reach} epochs on both sides.",
            "" if config.schedule == "step" else f"The schedule is {config.schedule}: it has no such steps.",
        ),
        "curves",
    )  # fmt: skip


def _values(config: RadiusConfig, tables: Tables, column: str) -> Verdict:
    """Overlap of the two intervals, radius by radius."""
    name, accuracy = column.replace("_", " "), column == "test_accuracy"
    unit, form = (100.0, ".2f") if accuracy else (1.0, ".4f")
    expected, measured, answers = [], [], []
    for rho in sorted(set(config.rhos) & set(PUBLISHED)):
        row = PUBLISHED[rho]
        mean, std = (row.accuracy, row.accuracy_std) if accuracy else (row.loss, row.loss_std)
        half = unit * half_width(std, SEEDS)
        found = interval(unit * _at(tables["runs"], rho, column))
        expected.append(f"{unit * mean:{form}} ± {half:{form}} at {rho:g}")
        measured.append(f"{shown(found, form, sign=False)} at {rho:g}")
        answers.append(_overlap(found, unit * mean - half, unit * mean + half))
    odd = lossy(tables)
    what = f"The published {'accuracies, %,' if accuracy else 'losses'} come out again"
    reading = "" if accuracy else f" ({READINGS[column]})"
    return Verdict(
        f"{what}{reading}.",
        TABLE,
        "; ".join(expected),
        "; ".join(measured),
        None if odd else config.only_if_decided(together(answers)),
        remarks(
            tables, config.why(), f"Not to be decided on such files ({name})." if odd and config.decides else "",
            "The 95 % intervals over seeds have to overlap; the published ones are of three seeds.",
        ),
        "final" if accuracy else "curves",
    )  # fmt: skip


def _overlap(found: Interval, low: float, high: float) -> bool | None:
    if found.n < 2:
        return None
    return found.low <= high and found.high >= low


def sheet(config: RadiusConfig, tables: Tables) -> Sheet:
    """Table I, published and measured."""
    rows = []
    for rho in sorted(config.rhos):
        row = PUBLISHED.get(rho)
        published = (f"{100 * row.accuracy:.2f}", f"{row.loss:.4f}") if row else ("", "")
        accuracy, *losses = (_at(tables["runs"], rho, column) for column in ("test_accuracy", *READINGS))
        words = [_mean(100 * accuracy, ".2f"), *(_mean(loss, ".4f") for loss in losses)]
        rows.append((f"{rho:g}", published[0], words[0], published[1], *words[1:]))
    heads = ("rho", "accuracy, %, published", "measured", "loss, published", *READINGS.values())
    caption = (
        f"Mean over seeds ± half of the 95 % interval. Measured: {config.model}, {config.here()}. Published: "
        f"WideResNet, CIFAR-10, 200 epochs, three seeds. {remarks(tables)}"
    )
    return Sheet("Accuracy and loss by radius", caption.strip(), heads, tuple(rows))


def draw(config: RadiusConfig, tables: Tables) -> list[Drawn]:
    """Curves as in Fig. 1, and accuracies at the end."""
    return [_final(config, tables), _curves(config, tables)]


def _final(config: RadiusConfig, tables: Tables) -> Drawn:
    values = {_label(rho): list(100 * _at(tables["runs"], rho, "test_accuracy")) for rho in sorted(config.rhos)}
    title = "Test accuracy at the end, %"
    words = "; ".join(f"{label}: {interval(numbers).mean:.2f}" for label, numbers in values.items())
    return Drawn(
        "final", title,
        f"{config.model}, {config.here()}. Rings are seeds, dots their means, bars the 95 % interval of the mean. "
        f"{remarks(tables)}".strip(),
        f"{title}. Means over seeds: {words}.",
        lambda canvas: draw_intervals(title, "test accuracy, %", canvas, values), tuple(values),
    )  # fmt: skip


def _curves(config: RadiusConfig, tables: Tables) -> Drawn:
    epochs = tables["epochs"]
    groups = {_label(rho): epochs[epochs["rho"] == rho] for rho in sorted(config.rhos)}
    accuracy = [curve(label, part, "test_accuracy", 100.0) for label, part in groups.items()]
    loss, train = ([curve(label, part, name) for label, part in groups.items()]
                   for name in ("test_loss", "train_eval_loss"))  # fmt: skip
    marks = [Mark(math.ceil(share * config.epochs) + 0.5) for share in FALLS] if config.schedule == "step" else []
    panels = [
        Panel(accuracy, "epoch", "Test accuracy, %", marks=marks, whole=True),
        Panel(loss, "epoch", "Test loss (cross-entropy)", log_y=True, marks=marks, whole=True),
        Panel(train, "epoch", "Training loss (cross-entropy)", log_y=True, marks=marks, whole=True),
    ]
    title = "Accuracy and loss by epoch"
    return Drawn(
        "curves", title,
        f"{config.model}, {config.here()}. Means over seeds, bands are 95 % intervals. Dotted lines: the learning rate "
        "falls to a fifth.",
        f"{title}. At the last epoch, accuracy in per cent: {spoken(accuracy, 4)}. Test loss: {spoken(loss)}. "
        f"Training loss: {spoken(train)}.",
        lambda canvas: draw_panels(canvas, title, panels), tuple(groups),
    )  # fmt: skip


def _label(rho: float) -> str:
    return f"rho = {rho:g}"


def _at(runs: pd.DataFrame, rho: float, column: str) -> pd.Series:
    return runs.loc[runs["rho"] == rho, column].astype(float).dropna()


def _against(
    config: RadiusConfig, runs: pd.DataFrame, ours: float, column: str, unit: float = 1.0
) -> dict[float, Interval]:
    """One radius less each other one."""
    scaled = runs.assign(value=unit * runs[column].astype(float))
    return {rho: paired(scaled, "rho", ours, rho, "value") for rho in sorted(config.rhos) if rho != ours}


def _gaps(gaps: dict[float, Interval], word: str, form: str = ".2f") -> str:
    return "; ".join(f"{shown(gap, form)} {word} {rho:g}" for rho, gap in gaps.items())


def _mean(values: pd.Series, form: str) -> str:
    found = interval(values)
    return (
        "none"
        if not found.n
        else f"{found.mean:{form}}" + (f" ± {found.high - found.mean:{form}}" if found.n > 1 else " (one seed)")
    )


def _log(loss: float) -> float:
    return math.log(loss) if loss > 0 else math.nan
