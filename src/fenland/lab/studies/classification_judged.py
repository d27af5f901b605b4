"""Table, figure and verdicts of the study `classification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import marker_of, scale_axis
from fenland.lab.figures.style import SMALL, blank, head, legend_height, name_x, title_of
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.base import Sheet, Tables, Verdict
from fenland.lab.study.trained import (
    above,
    below,
    by,
    colours,
    explained,
    lossy,
    lost,
    paired,
    ratio_of,
    shown,
    together,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fenland.lab.figures.style import Canvas
    from fenland.lab.studies.classification import ClassificationConfig

# (better, than which, source).
CLAIMS = (
    ("sam", "sgd", "Foret et al. 2021, arXiv 2010.01412"),
    ("usam", "sgd", "Foret et al. 2021, arXiv 2010.01412, on the unnormalised ascent"),
    ("ssam", "sam", "SSAM paper, abstract: consistently better than SAM"),
    ("ssam-u", "usam", "SSAM paper, abstract: consistently better than SAM"),
    ("ssam", "sgd", "SSAM paper, summary: in many cases better than SGD"),
    ("ssam-u", "sgd", "SSAM paper, summary: in many cases better than SGD"),
    ("asam", "sgd", "Kwon et al. 2021, arXiv 2102.11600"),
    ("stable-asam", "asam", "SSAM paper, abstract: integrates with SAM's variants; that it gains there is our reading"),
)
SLOWER = 1.1  # times SAM's seconds: more than that is no "almost no computational cost"
Cells = Mapping[str, Mapping[str, Interval]]


def judge(config: ClassificationConfig, tables: Tables) -> list[Verdict]:
    """All verdicts."""
    rows = tables["runs"]
    verdicts = [
        _better(config, tables, data, ours, theirs, source)
        for data in config.data
        for ours, theirs, source in CLAIMS
        if {ours, theirs} <= set(config.optimizers)
    ]
    for ours, theirs in (("ssam", "sam"), ("ssam-u", "usam"), ("stable-asam", "asam")):
        if {ours, theirs} <= set(rows["optimizer"]):
            verdicts.append(_cost(rows, ours, theirs, config.data[0]))
    return explained(verdicts)


def sheets(config: ClassificationConfig, tables: Tables) -> list[Sheet]:
    """One a data set: a row a network, a column an optimizer."""
    found = []
    for data in config.data:
        cells, failed = _cells(config, tables["runs"], data), _failed(tables["runs"], data)
        heads = ("network", *(title_of(name) for name in config.optimizers))
        rows = tuple(
            (model, *(_cell(row.get(name), failed.get((model, name), 0)) for name in config.optimizers))
            for model, row in cells.items()
        )
        caption = (
            f"Mean over seeds ± half of the 95 % interval, after {_epochs(config)}"
            + (f", on {config.limit:,} train images" if config.limit else "")
            + ". "
            + lossy({"data": tables["data"][tables["data"]["data"] == data]})
        )
        found.append(Sheet(f"Test accuracy on {data}, %", caption.strip(), heads, rows))
    return found


def draw(config: ClassificationConfig, tables: Tables) -> list[Drawn]:
    """One figure a data set."""
    found = []
    for data in config.data:
        cells = _cells(config, tables["runs"], data)
        title = f"Test accuracy on {data}, %"
        words = [
            f"{model}: " + ", ".join(f"{title_of(name)} {shown(x, '.2f', sign=False)}" for name, x in row.items())
            for model, row in cells.items()
        ]
        caption = (
            f"Means over seeds with 95 % intervals, after {_epochs(config)}. "
            f"{lossy({'data': tables['data'][tables['data']['data'] == data]})}"
        )
        found.append(
            Drawn(
                f"accuracy_{data.replace('/', '_')}", title, caption.strip(), f"{title}. {'; '.join(words)}.",
                lambda canvas, title=title, cells=cells: _dots(canvas, title, cells),  # type: ignore[misc]
                colours(config.optimizers),
            )
        )  # fmt: skip
    return found


def _epochs(config: ClassificationConfig) -> str:
    return f"{config.epochs} epoch{'s' * (config.epochs > 1)}"


def _done(rows: pd.DataFrame, data: str) -> pd.DataFrame:
    return rows[(rows["status"] == "finished") & (rows["data"] == data)]


def _cells(config: ClassificationConfig, rows: pd.DataFrame, data: str) -> dict[str, dict[str, Interval]]:
    """Accuracy in per cent by network and optimizer, in the configuration's order."""
    done = _done(rows, data).groupby(["model", "optimizer"])["test_accuracy"]
    found = {key: interval(100 * values.astype(float)) for key, values in done}
    return {
        model: {name: found[model, name] for name in config.optimizers if (model, name) in found}
        for model in config.models
    }


def _failed(rows: pd.DataFrame, data: str) -> dict[tuple[str, str], int]:
    broken = rows[(rows["status"] != "finished") & (rows["data"] == data)]
    return {(str(model), str(name)): len(part) for (model, name), part in broken.groupby(["model", "optimizer"])}


def _cell(found: Interval | None, failed: int) -> str:
    words = f"; {failed} diverged" if failed else ""
    if found is None:
        return f"none{words}"
    half = f" ± {found.high - found.mean:.2f}" if found.n > 1 else " (one seed)"
    return f"{found.mean:.2f}{half}{words}"


def _better(config: ClassificationConfig, tables: Tables, data: str, ours: str, theirs: str, source: str) -> Verdict:
    """Every network has to agree: that is what "consistently" says."""
    done = _done(tables["runs"], data)
    done = done.assign(percent=100 * done["test_accuracy"].astype(float))
    found = {m: paired(part, "optimizer", ours, theirs, "percent") for m, part in by(done, "model")}
    answer = together(above(x) for x in found.values())
    small = (
        ""
        if config.decides
        else f"Not decided: {_epochs(config)} on {config.limit or 'all'} images are far from the published 200 "
        "epochs on all of them, and a short training ranks methods by their speed."
    )
    notes = (small, "Paired over seeds.", lossy({"data": tables["data"][tables["data"]["data"] == data]}),
             lost(tables["runs"][tables["runs"]["data"] == data]))  # fmt: skip
    return Verdict(
        f"{data}: {title_of(ours)} has a higher test accuracy than {title_of(theirs)}.",
        source,
        "a difference above 0 for each network",
        "; ".join(f"{model}: {shown(x, '.2f')} points" for model, x in found.items()) or "no finished run",
        answer if config.decides else None,
        " ".join(note for note in notes if note),
        f"accuracy_{data.replace('/', '_')}",
    )


def _cost(rows: pd.DataFrame, ours: str, theirs: str, data: str) -> Verdict:
    done = rows[rows["status"] == "finished"]
    done = done.assign(
        log=np.log(done["seconds"].astype(float)),
        case=done["data"] + " " + done["model"] + " " + done["seed"].astype(str),
    )
    log = paired(done, "optimizer", ours, theirs, "log", "case")
    ratio = ratio_of(log)
    each = paired(done, "optimizer", ours, theirs, "gradient_evaluations", "case")
    same = each.n > 0 and each.low == each.high == 0
    return Verdict(
        f"{title_of(ours)} costs about what {title_of(theirs)} does.",
        "SSAM paper, abstract: almost no computational cost",
        f"as many gradient evaluations, and at most {SLOWER:g} times the seconds",
        f"{'as many' if same else f'{each.mean:+.0f}'} evaluations; {shown(ratio, '.3f', sign=False)} times the "
        "seconds",
        together([same, below(ratio, SLOWER)]),
        "Geometric mean over paired runs; runs that share a machine with others make the seconds uncertain.",
        f"accuracy_{data.replace('/', '_')}",
    )


def _dots(canvas: Canvas, title: str, cells: Cells) -> Figure:
    """A row a network, in it a dot with its bar an optimizer."""
    titled = {model: {title_of(name): found for name, found in row.items()} for model, row in cells.items()}
    names = [label for label in canvas.labels if any(label in row for row in titled.values())]
    step = 14.0
    figure, axes = blank(canvas, 60 + len(cells) * (step * len(names) + 26) + legend_height(names))
    axes.grid(visible=False)
    axes.grid(axis="x", color=canvas.ink.line, linewidth=0.7)
    apart = len(names) + 1.7
    for place, (model, row) in enumerate(titled.items()):
        axes.text(
            0.0, place * apart - 0.95, model, transform=axes.get_yaxis_transform(), ha="left", va="center",
            fontsize=SMALL, color=canvas.ink.text,
        )  # fmt: skip
        for index, name in enumerate(names):
            if name in row:
                found, at = row[name], place * apart + index
                color = canvas.look(name)["color"]
                axes.plot([found.low, found.high], [at, at], color=color, linewidth=4, alpha=0.35)
                axes.plot([found.mean], [at], marker_of(canvas, name), color=color, markersize=5.5)
    axes.set_ylim(len(cells) * apart - 1.2, -1.7)
    axes.set_yticks([])
    scale_axis(axes.xaxis, log=False)
    name_x(axes, canvas, "test accuracy, %")
    head(axes, canvas, title, names)
    return figure
