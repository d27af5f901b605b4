"""Table, figure and verdicts of the study `architectures`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Panel, draw_panels
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.studies.architectures import OPTIMIZERS, family_of
from fenland.lab.study.base import Sheet, Tables, Verdict
from fenland.lab.study.investigations import curve, remarks, spoken
from fenland.lab.study.shares import share
from fenland.lab.study.trained import above, below, paired, shown, together

if TYPE_CHECKING:
    from fenland.lab.studies.architectures import ArchitecturesConfig

# SGD and SAM keep the colours that they have in other studies; ASAM takes that of USAM, which is not shown here.
LABELS = ("SGD", "ASAM", "SSAM-U", "SAM")
SECTION = "Investigations on SAM, section IV-B and Table II"
# Points of accuracy. The report calls SAM and SGD close on PyramidNet and gives no number in the text at hand.
CLOSE = 0.5
# What the report saw of SAM and of ASAM on VGG is at least one failed run of three.
LEAST_FAILURES = 1 / 3


def judge(config: ArchitecturesConfig, tables: Tables) -> list[Verdict]:
    """All verdicts that the configured networks allow."""
    verdicts = []
    for model, family in _families(config, tables):
        if family in ("ResNet", "WideResNet"):
            verdicts += [_better(config, tables, model, *pair) for pair in (("sam", "sgd"), ("asam", "sam"))]
        elif family == "PyramidNet":
            verdicts += [_close(config, tables, model), _worse(config, tables, model)]
        else:
            verdicts += [_fails(config, tables, model), _spared(config, tables, model)]
    return verdicts


def _better(config: ArchitecturesConfig, tables: Tables, model: str, ours: str, theirs: str) -> Verdict:
    gap = _gap(tables, model, ours, theirs)
    return Verdict(
        f"{title_of(ours)} generalises better than {title_of(theirs)} on {model}.",
        SECTION,
        "a difference of the test accuracies above 0",
        f"{shown(gap, '.2f')} points",
        config.only_if_decided(above(gap)),
        _note(config, tables, model),
    )


def _worse(config: ArchitecturesConfig, tables: Tables, model: str) -> Verdict:
    gaps = {other: _gap(tables, model, "asam", other) for other in ("sam", "sgd")}
    return Verdict(
        f"ASAM generalises worse than SAM and SGD on {model}.",
        SECTION,
        "differences of the test accuracies below 0",
        "; ".join(f"{shown(gap, '.2f')} points against {title_of(name)}" for name, gap in gaps.items()),
        config.only_if_decided(together(below(gap) for gap in gaps.values())),
        _note(config, tables, model),
    )


def _close(config: ArchitecturesConfig, tables: Tables, model: str) -> Verdict:
    gap = _gap(tables, model, "sam", "sgd")
    inside = together([above(gap, -CLOSE), below(gap, CLOSE)])
    return Verdict(
        f"SAM and SGD are close on {model}.",
        SECTION,
        f"a difference of the test accuracies within ±{CLOSE:g} points; the tolerance is ours",
        f"{shown(gap, '.2f')} points",
        config.only_if_decided(inside),
        _note(config, tables, model),
    )


def _fails(config: ArchitecturesConfig, tables: Tables, model: str) -> Verdict:
    counts = {name: _count(tables, model, name) for name in ("sam", "asam")}
    answers = [_can_fail(failed, total) for failed, total in counts.values()]
    return Verdict(
        f"On {model} some runs of SAM and some of ASAM fail: they stay at the accuracy of guessing.",
        SECTION,
        "failed runs of both, about 10 % accuracy",
        _counted(counts),
        config.only_if_decided(together(answers)),
        remarks(
            tables, config.why(), "Intervals are Wilson's. It does not hold where a rate of one in three, the least "
            "that the report can have seen, is outside; with no failure in a few runs it stays open.", _norm(model),
        ),
    )  # fmt: skip


def _spared(config: ArchitecturesConfig, tables: Tables, model: str) -> Verdict:
    failed, total = _count(tables, model, "sgd")
    found = share(failed, total)
    answer = False if failed else None if found.high >= LEAST_FAILURES else True
    return Verdict(
        f"On {model} SGD does not fail: the failures are those of SAM and ASAM.",
        f"{SECTION}; that SGD is spared is our reading, the report names SAM and ASAM alone",
        "no failed run",
        _counted({"sgd": (failed, total)}),
        config.only_if_decided(answer),
        remarks(tables, config.why(), "No failure in a few runs leaves it open.", _norm(model)),
    )


def _can_fail(failed: int, total: int) -> bool | None:
    if failed:
        return True
    return False if total and share(failed, total).high < LEAST_FAILURES else None


def _norm(model: str) -> str:
    return "This VGG has no batch norm." if model.endswith("-plain") else "This VGG has batch norm."


def _note(config: ArchitecturesConfig, tables: Tables, model: str) -> str:
    counts = {name: _count(tables, model, name) for name in OPTIMIZERS}
    lost = {name: count for name, count in counts.items() if count[0]}
    words = f"Failed and left out: {_counted(lost)}." if lost else ""
    return remarks(tables, config.why(), "Paired over seeds.", words)


def _counted(counts: dict[str, tuple[int, int]]) -> str:
    parts = []
    for name, (failed, total) in counts.items():
        found = share(failed, total)
        parts.append(f"{title_of(name)} {failed} of {total} runs [{100 * found.low:.0f} to {100 * found.high:.0f} %]")
    return "; ".join(parts)


def _families(config: ArchitecturesConfig, tables: Tables) -> list[tuple[str, str]]:
    """Networks with their families, in the configuration's order."""
    found = set(tables["runs"]["model"])
    return [(model, family_of(model)) for model in config.models if model in found]


def _count(tables: Tables, model: str, optimizer: str) -> tuple[int, int]:
    """Failed runs, and all."""
    runs = tables["runs"]
    part = runs[(runs["model"] == model) & (runs["optimizer"] == optimizer)]
    return int(part["failed"].sum()), len(part)


def _alive(tables: Tables, model: str) -> pd.DataFrame:
    runs = tables["runs"]
    part = runs[(runs["model"] == model) & ~runs["failed"].astype(bool)]
    return part.assign(percent=100 * part["test_accuracy"].astype(float))


def _gap(tables: Tables, model: str, ours: str, theirs: str) -> Interval:
    return paired(_alive(tables, model), "optimizer", ours, theirs, "percent")


def sheet(config: ArchitecturesConfig, tables: Tables) -> Sheet:
    """A row a network, a column an optimizer, failed runs beside."""
    rows = tuple(
        (model, *(_cell(tables, model, name) for name in OPTIMIZERS)) for model, _ in _families(config, tables)
    )  # fmt: skip
    caption = f"Mean over the seeds that did not fail ± half of the 95 % interval; {config.here()}. {remarks(tables)}"
    return Sheet("Test accuracy by network, %", caption.strip(), ("network", *map(title_of, OPTIMIZERS)), rows)


def _cell(tables: Tables, model: str, optimizer: str) -> str:
    alive = _alive(tables, model)
    found = interval(alive.loc[alive["optimizer"] == optimizer, "percent"])
    failed, total = _count(tables, model, optimizer)
    half = f" ± {found.high - found.mean:.2f}" if found.n > 1 else " (one seed)"
    words = f"{found.mean:.2f}{half}" if found.n else "none"
    return f"{words}; {failed} of {total} failed" if failed else words


def draw(config: ArchitecturesConfig, tables: Tables) -> list[Drawn]:
    """Accuracy and loss by epoch; failed runs are part of the means."""
    return [
        _curves(config, tables, "accuracy", "test_accuracy", "Test accuracy, %", 100.0),
        _curves(config, tables, "loss", "test_loss", "Test loss (cross-entropy)", 1.0),
    ]


def _curves(
    config: ArchitecturesConfig, tables: Tables, name: str, column: str, title: str, unit: float
) -> Drawn:  # fmt: skip
    panels, words = [], []
    for model, _ in _families(config, tables):
        part = tables["epochs"][tables["epochs"]["model"] == model]
        lines = [curve(title_of(each), part[part["optimizer"] == each], column, unit) for each in OPTIMIZERS]
        panels.append(Panel(lines, "epoch", model, whole=True, log_y=column == "test_loss"))
        words.append(f"{model}: {spoken(lines, 4)}")
    return Drawn(
        name, f"{title}, by epoch",
        f"{config.here()[0].upper()}{config.here()[1:]}. Means over seeds, failed runs among them; bands are 95 % "
        "intervals.",
        f"{title}, at the last epoch. {'. '.join(words)}.",
        lambda canvas: draw_panels(canvas, f"{title}, by epoch", panels), LABELS,
    )  # fmt: skip
