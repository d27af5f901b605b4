"""Makes docs/reproduction.md and its pages from docs/records: python docs/reproduction.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from papers import ITEMS, Item, Ran, faithful

from fenland.lab.store.files import write_text
from fenland.lab.studies import STUDIES, find
from fenland.lab.study.records import Record, cell, collect, listed, machines_of, of_study, scale, summary
from fenland.lab.study.study import Study
from fenland.markdown import table

HERE = Path(__file__).parent
HEAD = """\
# Reproduction

This page lists what the papers show, item by item, and says whether it was repeated faithfully. Each study has a page
with its claims, the published and the measured values, and notes. A claim that does not hold is listed like any other.
A claim that cannot be decided at the scale of the study stays open.
"""
RUNS = """\
## Runs

Claims of papers and claims of our own are counted separately. Each counts once: at the published scale if that was
run, and otherwise at the smaller one. If a study has changed the wording of a claim since, only the new wording counts.
"""
HOW = """\
## How these pages are made

A program makes them from the records in `docs/records`, which `fenland study` wrote. DIR holds `cifar10/` and `mnist/`,
each with `train.parquet` and `test.parquet`. Without `--data-root` the data are loaded from the hub. The last two lines
need a clone:

```sh
fenland study all --preset quick --data-root DIR --out OUT
fenland study --table OUT --json > docs/records/NAME.json
python docs/reproduction.py
```

**Scale** is the preset. `quick` is small and meant for two cores. Where it says "as published", it is the paper's own
setting. **JPEG** marks images that were compressed again with losses. Accuracies on them differ from published ones, so
compare the methods with each other. Numbers in brackets are 95 % intervals, over seeds where there are several.
**Computed in** is the computing time of all processes, restarts included. Records from before 28 November 2026 give the
wall-clock time of the last process, and records of that day may count the training of networks by the wall clock.
A commit that ends in `-dirty` had uncommitted edits when the study ran.
"""


def pages(
    records: Sequence[Record],
    order: Sequence[str] = (),
    items: Sequence[Item] = (),
    known: Mapping[str, Study] | None = None,
) -> dict[str, str]:
    """The opening page and one a study, as Markdown by the paths of their files.

    Args:
        records: what was run.
        order: names of studies, for a sentence on those that were not run.
        items: of the papers, for the first table.
        known: studies by name; their pages also have the question and how the source was read.
    """
    machines = machines_of(records)
    runs = summary(records, machines, lambda name: f"[{name}](reproduction/{name}.md)")
    missing = [name for name in order if name not in {record.study for record in records}]
    runs += f"\nNot in these records: {', '.join(missing)}.\n" if missing else ""
    found = {"reproduction.md": "\n".join([HEAD, _items(records, items), RUNS, runs, listed(machines), HOW])}
    for name in dict.fromkeys(record.study for record in records):
        text = of_study(name, records, machines, (known or {}).get(name), "[All studies](../reproduction.md)")
        found[f"reproduction/{name}.md"] = f"{text}\n{listed(machines)}"
    return found


def _items(records: Sequence[Record], items: Sequence[Item]) -> str:
    ran = [Ran(each.study, ", ".join([*each.data, scale(each)]), each.published) for each in records]
    known = {record.study for record in records}
    rows = []
    for item in items:
        link = f"[{item.study}](reproduction/{item.study}.md)" if item.study in known else item.study
        words = (cell(each) for each in (item.needs, *faithful(item, ran)))
        rows.append((cell(item.paper), cell(item.item), link, *words))
    return table(("paper", "item", "study", "what it needs", "what was run", "faithful"), rows) if items else ""


def write(found: Mapping[str, str], folder: Path) -> None:
    """Write `pages` into a folder."""
    (folder / "reproduction").mkdir(exist_ok=True)
    for name, text in found.items():
        write_text(folder / name, text)


def found() -> dict[str, str]:
    """The pages that the committed records give."""
    records = collect(HERE / "records", list(STUDIES))
    return pages(records, list(STUDIES), ITEMS, {name: find(name) for name in STUDIES})


if __name__ == "__main__":
    write(found(), HERE)
