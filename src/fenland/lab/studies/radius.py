"""The radius of SAM's ball: Fig. 1 and Table I of "Investigations on SAM"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fenland.lab.figures.plots import Mark
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.studies.investigations import (
    SHORT,
    WHICH,
    Investigation,
    about,
    accuracy,
    ends_and_curves,
    investigation,
    loss,
    setting,
    smoothed_loss,
)  # fmt: skip
from fenland.lab.study import C, Claim, Contrast, Grid, Quantity, both, ratio
from fenland.lab.study.grid import above_zero, at_least_two
from fenland.lab.study.parts import Finding, Lab, Measured, Piece, Sheet, Source, Tables
from fenland.lab.study.published import Cell, Published
from fenland.lab.study.quantities import gap
from fenland.lab.study.words import half, lossy, shown

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

TABLE, SECTION = SHORT.at("Table I"), SHORT.at("section II-B")
TABLE_I = Published("rho", {
    "test_accuracy": {
        0.01: Cell(96.89, 0.07), 0.05: Cell(97.17, 0.07), 0.1: Cell(97.10, 0.08), 0.5: Cell(95.59, 0.07),
    },
    "loss": {
        0.01: Cell(0.0729, 0.0017), 0.05: Cell(0.0675, 0.0011), 0.1: Cell(0.0695, 0.0007), 0.5: Cell(0.1143, 0.0014),
    },
}, seeds=3)  # fmt: skip
BEST, WORST = 0.05, 0.5
FALLS = (0.3, 0.6, 0.8)  # shares of the epochs after which the learning rate falls to a fifth
DROPS = FALLS[:2]  # where the report saw the loss drop
# The loss of Table I is the one that davda54/sam prints.
READING = "divergence from smoothed labels"
printed = Quantity("smoothed_loss", form=".4f")


@dataclass(frozen=True)
class Config(Investigation):
    """What is run: one network, and radii of SAM."""

    model: str = "wrn10-1"
    rhos: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5)

    def __post_init__(self) -> None:
        at_least_two("rhos", self.rhos)
        above_zero(self, "rhos")


def with_smoothed(config: Config, lab: Lab, tables: Tables, runs: Mapping[str, RunConfig]) -> Tables:
    """The loss that davda54/sam prints, at the last weights of each run that finished."""
    rows = tables["runs"]
    done = list(rows.loc[rows["status"] == "finished", "run"])
    pieces = [
        Piece("loss", {"run": name}, partial(smoothed_loss, runs[name], lab.weights_file(runs[name]))) for name in done
    ]
    found = {name: part["loss"].iloc[0] for name, part in zip(done, lab.keep_all(pieces, "losses"), strict=True)}
    return tables | {"runs": rows.assign(smoothed_loss=rows["run"].map(found).astype(float))}


def against(ours: float, quantity: Quantity, word: str) -> Contrast:
    """One radius less each other one."""

    def measure(measured: Measured) -> dict[str, Interval]:
        rows = quantity.rows(measured)
        return {f"{rho:g}": gap(rows, "rho", ours, rho) for rho in sorted(measured.config.rhos) if rho != ours}

    unit = f" {quantity.unit}" if quantity.unit else ""
    return Contrast(measure, f"{{value}}{unit} {word} {{key}}", quantity.form)


def claims(measured: Measured) -> Iterator[Claim]:
    """All that the configured radii allow."""
    config, rhos = measured.config, set(measured.config.rhos)
    paper: dict[str, Any] = {"scope": "paper", "notes": ("Paired over seeds.",)}
    if BEST in rhos:
        yield Claim(
            f"Test accuracy is highest at rho = {BEST:g}.", TABLE, against(BEST, accuracy, "over") > 0, "final",
            expected=_published(rhos, BEST, "over") or "a difference above 0 from each", **paper,
        )  # fmt: skip
    if WORST in rhos:
        yield Claim(
            f"Test accuracy is lowest at rho = {WORST:g}.", TABLE, against(WORST, accuracy, "against") < 0, "final",
            expected=_published(rhos, WORST, "against") or "a difference below 0 from each", **paper,
        )  # fmt: skip
    if {BEST, WORST} <= rhos:
        yield Claim(
            f"The test loss ({READING}) is lowest at rho = {BEST:g} and highest at rho = {WORST:g}.", TABLE,
            lowest_and_highest, "curves", "paper",
            "; ".join(f"{cell.mean:.4f} at {rho:g}" for rho, cell in TABLE_I.columns["loss"].items()),
            ("Paired over seeds; diverged runs have no loss and are left out.",),
        )  # fmt: skip
        if len([rho for rho in rhos if rho < WORST]) > 1:
            yield Claim(
                f"Among radii below {WORST:g} the accuracy hardly depends on rho: their spread is less than the fall "
                f"to {WORST:g}.", SHORT.at("section II-B and Table I"), spread, "final", "paper",
                notes="Spread: the largest accuracy less the smallest, each seed by itself.",
            )  # fmt: skip
        yield Claim(
            "A large radius slows the descent itself: at the end the training loss is higher at rho = "
            f"{WORST:g} than at {BEST:g}.",
            Source(f"{SECTION}, its hypothesis; the training loss as its measure is ours"),
            ratio(Quantity("train_loss"), "rho", WORST, BEST) > 1, "curves", expected="a ratio of the losses above 1",
            notes=(
                about, "Cross-entropy without smoothing on all train images, in evaluation mode; geometric mean, "
                "paired over seeds. It says how the numbers lie, not that steps out of the minimum are the cause.",
            ),
        )  # fmt: skip
    yield Claim(
        "In most runs the test loss drops suddenly where the learning rate falls, at 30 and 60 % of the epochs.",
        SHORT.at("section II-B and Fig. 1"), drops, "curves", "paper", notes=(
            f"Around: {_reach(config)} epochs on both sides.",
            "" if config.schedule == "step" else f"The schedule is {config.schedule}: it has no such steps.",
        ),
    )  # fmt: skip
    shared = sorted(rhos & set(TABLE_I.columns["loss"]))
    if shared:
        yield _comes_out("The published accuracies, %, come out again.", accuracy, "test_accuracy", shared, "final")
        yield _comes_out(f"The published losses come out again ({READING}).", printed, "loss", shared, "curves")


def _published(rhos: set[float], ours: float, word: str) -> str:
    cells = TABLE_I.columns["test_accuracy"]
    others = [rho for rho in sorted(rhos) if rho in cells and rho != ours]
    return "; ".join(f"{cells[ours].mean - cells[rho].mean:+.2f} points {word} {rho:g}" for rho in others)


def lowest_and_highest(measured: Measured) -> Finding:
    """The loss of two radii against those of the others."""
    low, high = against(BEST, printed, "against"), against(WORST, printed, "against")
    words = [f"{rho:g}: {each.said(each.measure(measured))}" for rho, each in ((BEST, low), (WORST, high))]
    return replace(both(low < 0, high > 0)(measured), measured=". ".join(words))


def spread(measured: Measured) -> Finding:
    """The fall to the largest radius less the spread among the others, each seed by itself."""
    wide = accuracy.rows(measured).pivot_table(index="seed", columns="rho", values="value")
    small = [rho for rho in measured.config.rhos if rho < WORST and rho in wide]
    among = wide[small].max(axis=1) - wide[small].min(axis=1)
    fall = wide[BEST] - wide[WORST]
    contrast = Contrast(lambda _: {"": interval(fall - among)}, form=".2f")
    found = (contrast > 0)(measured)
    words = f"spread {shown(interval(among), '.2f', sign=False)} points, fall {shown(interval(fall), '.2f')}"
    said = f"{words}, fall less spread {found.measured}"
    return replace(found, expected="a spread of 0.28 points, a fall of 1.58", measured=said)


def _reach(config: Config) -> int:
    return max(2, round(config.epochs / 10))


def drops(measured: Measured) -> Finding:
    """A drop is sudden where the fall of the loss at the mark is the largest within a tenth of the epochs around."""
    config, reach, found = measured.config, _reach(measured.config), []
    for _, run in measured["epochs"].groupby("run"):
        change = run.set_index("epoch")["test_loss"].astype(float).diff()
        for mark in (math.ceil(part * config.epochs) for part in DROPS):
            near = change.reindex(range(mark + 1 - reach, mark + 2 + reach))
            found.append(bool(near.idxmin() == mark + 1) if near.notna().any() else False)
    holds = bool(sum(found) > len(found) / 2) if config.schedule == "step" else None
    return Finding(
        "the largest fall around, in more than half of the cases", f"{sum(found)} of {len(found)} cases", holds
    )


def _comes_out(sentence: str, quantity: Quantity, column: str, cases: list[float], figure: str) -> Claim:
    agrees = TABLE_I.agrees(quantity, cases, column)
    why = f"Not to be decided on such files ({quantity.column.replace('_', ' ')})."

    def judge(measured: Measured) -> Finding:
        found = agrees(measured)
        return replace(found, holds=None, open=why) if lossy(measured) else found

    note = "The 95 % intervals over seeds have to overlap; the published ones are of three seeds."
    return Claim(sentence, TABLE, judge, figure, "paper", notes=note)


def sheet(measured: Measured) -> Sheet:
    """Table I, published and measured."""
    config, rows = measured.config, []
    shown_of = {"test_accuracy": accuracy, "loss": printed, "": loss}
    for rho in sorted(config.rhos):
        cells = [rho_cells.get(rho) for rho_cells in (TABLE_I.columns.get(name, {}) for name in shown_of)]
        published = [f"{x.mean:{q.form}}" if x else "" for x, q in zip(cells, shown_of.values(), strict=True)]
        ours = [half(q.at(rho=rho).rows(measured)["value"].dropna(), q.form) for q in shown_of.values()]
        rows.append((f"{rho:g}", published[0], ours[0], published[1], *ours[1:]))
    heads = ("rho", "accuracy, %, published", "measured", "loss, published", READING, "cross-entropy")
    caption = (
        f"Mean over seeds ± half of the 95 % interval. Measured: {config.model}, {config.here()}. Published: "
        "WideResNet, CIFAR-10, 200 epochs, three seeds."
    )
    return Sheet("Accuracy and loss by radius", caption, heads, tuple(rows))


def falls(measured: Measured) -> list[Mark]:
    """Where the learning rate falls."""
    config = measured.config
    return [Mark(math.ceil(x * config.epochs) + 0.5) for x in FALLS] if config.schedule == "step" else []


STUDY = investigation(
    "Fig. 1 and Table I", {"model": "wrn16-8"}, (
        WHICH,
        "The report does not say which loss Table I has. We take the one that davda54/sam prints: over the test set, "
        "the divergence of the smoothed labels (0.9 on the true class) from the outputs. It is measured at the last "
        "weights. The cross-entropy without smoothing is beside it in the table, and is drawn by epoch.",
        "The report calls 200 passes over the data steps; here they are called epochs.",
    ),
    name="radius",
    title="The radius of SAM's ball",
    question="How do accuracy and loss of a wide residual network depend on SAM's radius, and what happens at a large "
    "one?",
    config=Config,
    runs=Grid(
        lambda config, lab: {"optimizer": "sam", "weights": True}, after=with_smoothed, diverged="guess", rho=C.rhos,
        seed=C.seeds,
    ),
    claims=claims,
    figures=ends_and_curves(
        "rho", [accuracy.by_epoch, loss.by_epoch, Quantity("train_eval_loss", "Training loss (cross-entropy)",
                                                           "epochs")],
        "Accuracy and loss by epoch", ("test_loss", "train_eval_loss"),
        lambda m: f"{setting(m)}. Dotted lines: the learning rate falls to a fifth.", "rho = {:g}".format, falls,
    ),
    sheets=[sheet],
)  # fmt: skip
