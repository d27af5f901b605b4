"""What was published, measured and holds, over stored studies: as records of plain values, and as Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.errors import BadInput
from fenland.lab.store.files import read_json, read_table
from fenland.lab.study.index import place_in, studies_below
from fenland.lab.study.kept import CONFIG, ENVIRONMENT, VERDICTS, read_study
from fenland.lab.study.notes import shared, split
from fenland.lab.study.parts import Verdict
from fenland.lab.study.tally import bare, once, tally
from fenland.lab.sweep.progress import duration
from fenland.markdown import table

if TYPE_CHECKING:
    from fenland.lab.study.study import Study

LONGEST_CELL = 100  # letters of what was measured; the rest goes into the notes
AS_ABOVE, LONGEST_AGAIN = "as above", 30  # what stands for a longer text that the row above has, too
MORE = "more in the notes"  # what ends a cell that was cut
HOLDS = {True: "yes", False: "**no**", None: "open"}
# What tells machines apart in the table.
MACHINE = ("cpu", "cores", "gpu", "python", "torch", "fenland")


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
    file: str = ""  # the name of the file that it was read from; empty where it is a part of fenland


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
                **{name: row[name] for name in names - {"verdicts", "data", "machines", "file"}},
                data=tuple(row["data"]),
                machines=tuple(row["machines"]),
                verdicts=tuple(Verdict(**verdict) for verdict in row["verdicts"]),
                file=row.get("file", ""),  # records of studies of fenland's own may have none
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
        file=Path(about["file"]).name,
    )


def _data(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The data sets of a study; its table ``data``, where it has one, knows how they were stored."""
    path = folder / "tables" / "data.parquet"
    if path.is_file():
        rows = read_table(path).itertuples(index=False)
        return tuple(f"{row.data} (JPEG)" if row.stored == "JPEG" else str(row.data) for row in rows)
    named = config.get("data", ())
    return (named,) if isinstance(named, str) else tuple(named)


def markdown(records: Sequence[Record], known: Mapping[str, Study] | None = None) -> str:
    """How many claims hold, the runs, and the claims of each study, as one text.

    Args:
        records: what was run.
        known: studies by name; what is told of these also has the question and how the source was read.
    """
    machines, names = machines_of(records), dict.fromkeys(record.study for record in records)
    told = (of_study(name, records, machines, (known or {}).get(name)) for name in names)
    return "\n".join([summary(records, machines), *told, listed(machines)])


def of_study(
    name: str, records: Sequence[Record], machines: Sequence[str], study: Study | None = None, links: str = ""
) -> str:
    """The claims of one study, run by run, between its question and how its source was read."""
    own = [record for record in records if record.study == name]
    return "\n".join([_head(own[0], study, links), *(_section(each, machines) for each in own), *_read(study)])


def _head(record: Record, study: Study | None, links: str) -> str:
    title = record.title if record.title.endswith(("?", "!")) else f"{record.title}."
    question = f" {cell(study.question)}" if study else ""
    source = f"Source: {cell(record.source)}.{links and ' '}{links}"
    return f"# {record.study}\n\n**{cell(title)}**{question}\n\n{source}\n"


def _read(study: Study | None) -> list[str]:
    """How the source was read, where the study says so."""
    if study is None or not study.choices:
        return []
    return ["## What the source leaves open, and how it is read here\n", *(f"- {cell(x)}" for x in study.choices), ""]


def machines_of(records: Sequence[Record]) -> list[str]:
    """Those that the records are of, each once; their places are their letters."""
    return list(dict.fromkeys(_machine(each) for record in records for each in record.machines))


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


def summary(records: Sequence[Record], machines: Sequence[str], link: Callable[[str], str] = str) -> str:
    """How many claims hold, and the runs with their data, scales and machines, as Markdown."""
    rows = []
    for record in records:
        counts = [sum(verdict.holds is holds for verdict in record.verdicts) for holds in HOLDS]
        cells = [link(record.study), *_where(record, machines), duration(record.seconds)]
        rows.append((*cells, *(count or "" for count in counts)))
    heads = ("study", "data", "scale", "machine", "computed in", "holds", "does not", "open")
    return f"{tally(once(_counted(records)))}\n\n{table(heads, rows)}"


def listed(machines: Sequence[str]) -> str:
    """The machines by their letters."""
    return "\n".join(["Machines:\n", *(f"- **{_letter(i)}**: {cell(text)}" for i, text in enumerate(machines)), ""])


def _section(record: Record, machines: Sequence[str]) -> str:
    command = ["fenland", "study", record.file or record.study, "--preset", record.preset]
    for name, value in record.changed.items():
        command += ["--set", f"{name}={value}"]
    data, size, machine = _where(record, machines)
    commit = f" at commit {record.commit}" if record.commit else ""
    ran = f"`{shlex.join(command)}`, run on {record.date}{commit}."
    said = f"{ran} Data: {data}. Scale: {size}. Machine: {machine}."
    numbered = list(enumerate(record.verdicts, 1))
    rows = _rows(numbered)
    judged = table(("claim", "holds", "published or expected", "measured", "whose"), rows)
    told = [(number, [*filter(None, [_parts(each.measured)[1]]), *split(each.note)]) for number, each in numbered]
    notes = [f"- **{numbers}**: {cell(text)}" for numbers, text in shared(told)]
    return "\n".join(
        [f"## Preset {scale(record)}\n", f"{said}\n", judged, *(["Notes:\n", *notes, ""] if notes else [])]
    )


def _rows(numbered: Sequence[tuple[int, Verdict]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    above = ("", "")
    for number, each in numbered:
        own = (each.source, each.expected)
        pairs = zip(own, above, strict=True)
        told = [AS_ABOVE if len(text) > LONGEST_AGAIN and text == last else cell(text) for text, last in pairs]
        whose, expected = told
        claim, measured = f"{number}. {cell(each.claim)}", cell(_parts(each.measured)[0])
        rows.append((claim, HOLDS[each.holds], expected, measured, whose))
        above = own
    return rows


def _parts(measured: str) -> tuple[str, str]:
    """What the table shows, and what is told below it: a narrow cell of many words makes a row of many lines."""
    if len(measured) <= LONGEST_CELL or "; " not in measured:
        return measured, ""
    first, rest = measured.split("; ", 1)
    return f"{first}; {MORE}", f"Also measured: {rest.rstrip('.')}."


def scale(record: Record) -> str:
    """Preset, whether it is the published one, and what was set."""
    published = "as published" if record.published and record.preset != "paper" else ""
    changed = ", ".join(f"{name}={value}" for name, value in record.changed.items())
    return ", ".join(filter(None, [record.preset, published, f"with {changed}" if changed else ""]))


def _where(record: Record, machines: Sequence[str]) -> list[str]:
    """Data, scale, machine."""
    letters = ", ".join(dict.fromkeys(_letter(machines.index(_machine(each))) for each in record.machines))
    return [cell(", ".join(record.data)) or "none, computed", cell(scale(record)), letters]


def _machine(each: Mapping[str, Any]) -> str:
    device = f"{each['gpu']}, " if each.get("gpu") else ""
    return (
        f"{device}{each.get('cpu')}, {each.get('cores')} cores; Python {each.get('python')}, "
        f"torch {each.get('torch')}, fenland {each.get('fenland')}"
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"M{index}"


def cell(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("<", "&lt;").split())
