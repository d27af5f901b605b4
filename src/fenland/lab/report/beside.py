"""Two stores, or two runs, on one page: what was measured in both, and in what they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures import draw_all, inline_svg
from fenland.lab.figures.style import title_of
from fenland.lab.report.page import Beside, render
from fenland.lab.report.setup import configuration, environment
from fenland.lab.report.table import Cell, number
from fenland.lab.store.files import write_text
from fenland.lab.store.records import Records, read_records
from fenland.lab.store.statistics import Interval, paired

# Column of the results, its title, factor, digits.
COMPARED = (
    ("test_accuracy", "Test accuracy, points", 100.0, 2), ("test_loss", "Test loss", 1.0, 4),
    ("loss_gap", "Loss gap", 1.0, 4), ("seconds", "Training time, s", 1.0, 2),
)  # fmt: skip


def read_source(place: Path) -> Records:
    """The records of a store, or of the one run whose folder this is (OUT/runs/HASH)."""
    one = place.parent.name == "runs" and (place / "result.json").is_file()
    try:
        return read_records(place.parent.parent, runs=[place.name]) if one else read_records(place)
    except FileNotFoundError:
        cure = "holds no stored run; give the --out of a comparison, or the folder of one run, OUT/runs/HASH"
        raise BadInput("DIR", place, cure) from None


def write_beside(first: Path, second: Path, page: Path, command: str) -> Path:
    """Write the page of two sources; it needs no other file and no network.

    Args:
        first: a store, or the folder of a run.
        second: what is compared with it.
        page: where it is written.
        command: that made it.

    Raises:
        BadInput: one of them holds no run.
    """
    sources = read_source(first), read_source(second)
    names = _names(first, second)
    records = _together(sources, names, command)
    figures = [(drawn, inline_svg(drawn, records.labels)) for drawn in draw_all(records)]
    text = render(records, figures, _beside(sources, names))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, text)
    return page


def _names(first: Path, second: Path) -> tuple[str, str]:
    """The last parts of two paths by which they differ."""
    one, other = first.resolve().parts, second.resolve().parts
    for length in range(1, max(len(one), len(other)) + 1):
        if one[-length] != other[-length]:
            return "/".join(one[-length:]), "/".join(other[-length:])
    return "first", "second"


def _together(sources: tuple[Records, Records], names: tuple[str, str], command: str) -> Records:
    """Both as one, each label with the name of its source; the same label of both stands side by side."""
    results, metrics = (
        pd.concat(
            [
                table.assign(label=table["label"] + f" [{name}]", source=place, run=f"{place}-" + table["run"])
                for place, (table, name) in enumerate(zip(tables, names, strict=True))
            ],
            ignore_index=True,
        )
        for tables in ([each.results for each in sources], [each.metrics for each in sources])
    )
    order = {label: index for index, label in enumerate(dict.fromkeys([*sources[0].labels, *sources[1].labels]))}
    bare = results["label"].str.rsplit(" [", n=1).str[0]
    place = results.assign(order=bare.map(order)).sort_values(["order", "source"], kind="stable").index
    environments = [each for source in sources for each in source.environments]
    return Records(
        out=sources[0].out,
        results=results.loc[place].drop(columns="source").reset_index(drop=True),
        metrics=metrics.drop(columns="source"),
        environments=tuple(environments[index] for index in place),
        comparison={"command": command, "baseline": sources[0].results["optimizer"].iloc[0]},
    )


def _beside(sources: tuple[Records, Records], names: tuple[str, str]) -> Beside:
    one, other = sources
    pairs = [(label, label) for label in one.labels if label in other.labels]
    if not pairs and len(one.labels) == len(other.labels) == 1:  # two runs of different optimizers
        pairs = [(one.labels[0], other.labels[0])]
    columns = [each for each in COMPARED if each[0] in one.results and each[0] in other.results]
    rows: list[tuple[Any, ...]] = []
    for left, right in pairs:
        both = pd.concat([_only(one, left, "first"), _only(other, right, "second")])
        found = [(paired(both, "second", "first", name), factor, digits) for name, _, factor, digits in columns]
        shared = max((each.n for each, *_ in found), default=0)
        title = title_of(left) if left == right else f"{title_of(right)} minus {title_of(left)}"
        rows.append((title, *(_shown(*each) for each in found), Cell(str(shared), order=str(shared))))
    heads = ("Optimizer", *(title for _, title, *_ in columns), "Shared seeds")
    return Beside(names, heads, tuple(rows), tuple(_differing(sources)))


def _only(records: Records, label: str, name: str) -> pd.DataFrame:
    return records.results[records.results["label"] == label].assign(label=name)


def _shown(found: Interval, factor: float, digits: int) -> Cell:
    mean, low, high = (number(factor * value, digits, sign=True) for value in found[:3])
    return Cell(mean, f"{low} to {high}" if found.n > 1 else "", order=f"{found.mean}")


def _differing(sources: tuple[Records, Records]) -> list[tuple[str, str, str]]:
    tables: list[dict[str, Any]] = [dict([*configuration(each), *environment(each)]) for each in sources]
    names = dict.fromkeys([*tables[0], *tables[1]])
    values = [(name, tables[0].get(name, "–"), tables[1].get(name, "–")) for name in names]
    return [each for each in values if each[1] != each[2]]
