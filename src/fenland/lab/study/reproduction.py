"""What was published, measured and holds, over stored studies: as records of plain values, and as pages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fenland.lab.errors import BadInput
from fenland.lab.store.files import read_json, read_table, write_text
from fenland.lab.study.index import place_in, studies_below
from fenland.lab.study.kept import CONFIG, ENVIRONMENT, VERDICTS, read_study
from fenland.lab.study.papers import Item, Ran, faithful
from fenland.lab.study.parts import Verdict
from fenland.lab.study.tally import bare, once, tally
from fenland.lab.sweep.progress import duration
from fenland.markdown import table

LONGEST_CELL = 100  # letters of what was measured; the rest goes into the notes
AS_ABOVE, LONGEST_AGAIN = "as above", 30  # what stands for a longer text that the row above has, too
HOLDS = {True: "yes", False: "**no**", None: "open"}
# What tells machines apart in the table.
MACHINE = ("cpu", "cores", "gpu", "python", "torch", "fenland")
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
fenland study --table docs/records --pages docs
```

**Scale** is the preset. `quick` is small and meant for two cores. Where it says "as published", it is the paper's own
setting. **JPEG** marks images that were compressed again with losses. Accuracies on them differ from published ones, so
compare the methods with each other. Numbers in brackets are 95 % intervals, over seeds where there are several.
**Computed in** is the computing time of all processes, restarts included. Records from before 28 November 2026 give the
wall-clock time of the last process, and records of that day may count the training of networks by the wall clock.
A commit that ends in `-dirty` had uncommitted edits when the study ran.
"""


@dataclass(frozen=True)
class Record:
    """A study that was run, without its tables."""

    study: str  # its name
    title: str  # on its page
    source: str  # paper and figure
    preset: str  # that was run
    changed: dict[str, str]  # fields set to other values, as text
    published: bool  # whether the configuration is that of the preset ``paper``
    data: tuple[str, ...]  # data sets, "JPEG" added to those with lossy images; empty where none is read
    machines: tuple[dict[str, Any], ...]  # where it and its training runs ran, without repetitions
    date: str  # of the run
    commit: str  # of the checkout that measured, "-dirty" where it was edited; empty for an installed package
    seconds: float  # that computing took, see `fenland.lab.study.run.Done`
    verdicts: tuple[Verdict, ...]  # all of them


def collect(folder: Path, order: Sequence[str] = ()) -> list[Record]:
    """The records of every study below an output folder, or of the record files (``*.json``) in a folder."""
    files = sorted(path for path in folder.glob("*.json"))
    records = [record for path in files for record in _from_file(path)] if files else []
    records = records or [_of_study(each) for each in studies_below(folder)]
    if not records:
        raise BadInput("table", folder, "holds neither studies nor records; give the --out of `fenland study`")
    return sorted(records, key=lambda each: (place_in(order, each.study), each.date))


def plain(records: Iterable[Record]) -> dict[str, Any]:
    """Records as a JSON document, which `collect` reads again."""
    return {"records": [asdict(record) for record in records]}


def _from_file(path: Path) -> list[Record]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["records"]
        names = {field.name for field in fields(Record)}
        return [
            Record(
                **{name: row[name] for name in names - {"verdicts", "data", "machines"}},
                data=tuple(row["data"]),
                machines=tuple(row["machines"]),
                verdicts=tuple(Verdict(**verdict) for verdict in row["verdicts"]),
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = " ".join(str(error).split())
        raise BadInput("table", path, f"is no record file ({type(error).__name__}: {words})") from error


def _of_study(folder: Path) -> Record:
    about, listed, here = (read_study(folder, name) for name in (CONFIG, VERDICTS, ENVIRONMENT))
    runs = [folder.parent / "runs" / name / ENVIRONMENT for name in about["runs"]]
    environments = [here, *(read_json(path, "run the study again") for path in runs if path.is_file())]
    machines = [{name: each.get(name) for name in MACHINE} for each in environments]
    return Record(
        study=about["study"],
        title=listed["title"],
        source=about["source"],
        preset=about["preset"],
        changed=about["set"],
        published=about["published"],
        data=_data(folder, about["config"]),
        machines=tuple(each for index, each in enumerate(machines) if each not in machines[:index]),
        date=str(here.get("time", ""))[:10],
        commit=str(here.get("commit") or ""),
        seconds=float(about["seconds"]),
        verdicts=tuple(Verdict(**verdict) for verdict in listed["verdicts"]),
    )


def _data(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The data sets of a study; its table ``data``, where it has one, knows how they were stored."""
    path = folder / "tables" / "data.parquet"
    if path.is_file():
        rows = read_table(path).itertuples(index=False)
        return tuple(f"{row.data} (JPEG)" if row.stored == "JPEG" else str(row.data) for row in rows)
    named = config.get("data", ())
    return (named,) if isinstance(named, str) else tuple(named)


def pages(records: Sequence[Record], order: Sequence[str] = (), items: Sequence[Item] = ()) -> dict[str, str]:
    """The opening page and one a study, as Markdown by the paths of their files."""
    machines = list(dict.fromkeys(_machine(each) for record in records for each in record.machines))
    names = list(dict.fromkeys(record.study for record in records))
    opening = [HEAD, _items(records, items), RUNS, _summary(records, machines, order), _machines(machines), HOW]
    found = {"reproduction.md": "\n".join(opening)}
    for name in names:
        own = [record for record in records if record.study == name]
        title, source = _cell(own[0].title), _cell(own[0].source)
        head = f"# {name}\n\n**{title}.** Source: {source}. [All studies](../reproduction.md)\n"
        sections = [_section(record, machines) for record in own]
        found[f"reproduction/{name}.md"] = "\n".join([head, *sections, _machines(machines)])
    return found


def write_pages(found: Mapping[str, str], folder: Path) -> Path:
    """Write `pages` into a folder that exists; the opening page is returned."""
    if not folder.is_dir():
        raise BadInput("pages", folder, "no such directory; make it first")
    (folder / "reproduction").mkdir(exist_ok=True)
    for name, text in found.items():
        write_text(folder / name, text)
    return folder / "reproduction.md"


def _items(records: Sequence[Record], items: Sequence[Item]) -> str:
    ran = [Ran(each.study, ", ".join([*each.data, _scale(each)]), each.published) for each in records]
    known = {record.study for record in records}
    rows = []
    for item in items:
        link = f"[{item.study}](reproduction/{item.study}.md)" if item.study in known else item.study
        words = (_cell(each) for each in (item.needs, *faithful(item, ran)))
        rows.append((_cell(item.paper), _cell(item.item), link, *words))
    return table(("paper", "item", "study", "what it needs", "what was run", "faithful"), rows) if items else ""


def _counted(records: Sequence[Record]) -> list[tuple[str, bool, list[Verdict]]]:
    """The verdicts that count: without claims that the study's newest record words in another way."""
    found = []
    for record in records:
        newest = max(each.date for each in records if each.study == record.study)
        today = {
            bare(verdict.claim)
            for each in records if each.study == record.study and each.date == newest for verdict in each.verdicts
        }  # fmt: skip
        kept = [verdict for verdict in record.verdicts if bare(verdict.claim) in today]
        found.append((record.study, record.published, kept))
    return found


def _summary(records: Sequence[Record], machines: Sequence[str], order: Sequence[str]) -> str:
    rows = []
    for record in records:
        counts = [sum(verdict.holds is holds for verdict in record.verdicts) for holds in HOLDS]
        link = f"[{record.study}](reproduction/{record.study}.md)"
        cells = [link, *_where(record, machines), duration(record.seconds)]
        rows.append((*cells, *(count or "" for count in counts)))
    missing = [name for name in order if name not in {record.study for record in records}]
    heads = ("study", "data", "scale", "machine", "computed in", "holds", "does not", "open")
    left = f"\nNot in these records: {', '.join(missing)}.\n" if missing else ""
    return f"{tally(once(_counted(records)))}\n\n{table(heads, rows)}{left}"


def _machines(machines: Sequence[str]) -> str:
    return "\n".join(["Machines:\n", *(f"- **{_letter(i)}**: {_cell(text)}" for i, text in enumerate(machines)), ""])


def _section(record: Record, machines: Sequence[str]) -> str:
    command = ["fenland", "study", record.study, "--preset", record.preset]
    for name, value in record.changed.items():
        command += ["--set", f"{name}={value}"]
    data, scale, machine = _where(record, machines)
    commit = f" at commit {record.commit}" if record.commit else ""
    ran = f"`{shlex.join(command)}`, run on {record.date}{commit}."
    said = f"{ran} Data: {data}. Scale: {scale}. Machine: {machine}."
    numbered = list(enumerate(record.verdicts, 1))
    rows = _rows(numbered)
    judged = table(("", "claim", "whose", "published or expected", "measured", "holds"), rows)
    told = [(number, " ".join(filter(None, (_parts(each.measured)[1], each.note)))) for number, each in numbered]
    notes = [f"- **{number}** {_cell(text)}" for number, text in told if text]
    return "\n".join(
        [f"## Preset {_scale(record)}\n", f"{said}\n", judged, *(["Notes:\n", *notes, ""] if notes else [])]
    )


def _rows(numbered: Sequence[tuple[int, Verdict]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    above = ("", "")
    for number, each in numbered:
        own = (each.source, each.expected)
        pairs = zip(own, above, strict=True)
        told = [AS_ABOVE if len(text) > LONGEST_AGAIN and text == last else _cell(text) for text, last in pairs]
        rows.append((number, _cell(each.claim), *told, _cell(_parts(each.measured)[0]), HOLDS[each.holds]))
        above = own
    return rows


def _parts(measured: str) -> tuple[str, str]:
    """What the table shows, and what is told below it: a narrow cell of many words makes a row of many lines."""
    if len(measured) <= LONGEST_CELL or "; " not in measured:
        return measured, ""
    first, rest = measured.split("; ", 1)
    return first, f"Measured: {rest.rstrip('.')}."


def _scale(record: Record) -> str:
    """Preset, whether it is the published one, and what was set."""
    published = "as published" if record.published and record.preset != "paper" else ""
    changed = ", ".join(f"{name}={value}" for name, value in record.changed.items())
    return ", ".join(filter(None, [record.preset, published, f"with {changed}" if changed else ""]))


def _where(record: Record, machines: Sequence[str]) -> list[str]:
    """Data, scale, machine."""
    letters = ", ".join(dict.fromkeys(_letter(machines.index(_machine(each))) for each in record.machines))
    return [_cell(", ".join(record.data)) or "none, computed", _cell(_scale(record)), letters]


def _machine(each: Mapping[str, Any]) -> str:
    device = f"{each['gpu']}, " if each.get("gpu") else ""
    return (
        f"{device}{each.get('cpu')}, {each.get('cores')} cores; Python {each.get('python')}, "
        f"torch {each.get('torch')}, fenland {each.get('fenland')}"
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"M{index}"


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("<", "&lt;").split())
