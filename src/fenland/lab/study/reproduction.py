"""The table "published, measured, holds" over stored studies: as records of plain values, and as Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fenland.lab.errors import BadInput
from fenland.lab.store.files import read_json
from fenland.lab.study.index import place_in, studies_below
from fenland.lab.study.kept import CONFIG, ENVIRONMENT, VERDICTS, read_study
from fenland.lab.study.parts import Verdict
from fenland.lab.study.tally import once, tally
from fenland.lab.sweep.progress import duration

HOLDS = {True: "yes", False: "**no**", None: "open"}
# What tells machines apart in the table.
MACHINE = ("cpu", "cores", "gpu", "python", "torch", "fenland")
HEAD = """\
# Reproduction

The claims of the papers that fenland's studies ask after, and our own beside them, with what was measured. A claim that
does not hold is listed like any other, and one that its scale cannot decide stays open. The first line below counts the
claims of papers and ours apart, and each once: at the published scale where that was run, else at the other.

This page is written by a program from the records in `docs/records`, which `fenland study` made. DIR holds `cifar10/`
and `mnist/`, each with `train.parquet` and `test.parquet`; without `--data-root` the hub is asked. The last two lines
are for a clone:

```sh
fenland study all --preset quick --data-root DIR --out OUT
fenland study --table OUT --json > docs/records/NAME.json
fenland study --table docs/records > docs/reproduction.md
```

**Scale** is the preset. `quick` is small and meant for two cores; where it says "as published", it is the paper's own
setting. **JPEG** marks images that were compressed again with losses: absolute accuracies on them lie off the published
ones, so that methods are to be compared with each other. Intervals in brackets are 95 %, over seeds where there are
seeds. Times are those of a wall clock, on machines that may have done other work as well; where pieces of a study were
found stored, they are of the rest. A commit that ends in `-dirty` had edits beside it when the study ran.
"""


@dataclass(frozen=True)
class Record:
    """A study that was run, without its tables.

    Attributes:
        study: its name.
        title: on its page.
        source: paper and figure.
        preset: that was run.
        changed: fields set to other values, as text.
        published: whether the configuration is that of the preset ``paper``.
        data: data sets, "JPEG" added to those with lossy images; empty where none is read.
        machines: where it and its training runs ran, without repetitions.
        date: of the run.
        commit: of the checkout that measured, "-dirty" where it was edited; empty for an installed package.
        seconds: that computing took, see `fenland.lab.study.run.Done`.
        verdicts: all of them.
    """

    study: str
    title: str
    source: str
    preset: str
    changed: dict[str, str]
    published: bool
    data: tuple[str, ...]
    machines: tuple[dict[str, Any], ...]
    date: str
    commit: str
    seconds: float
    verdicts: tuple[Verdict, ...]


def collect(folder: Path, order: Sequence[str] = ()) -> list[Record]:
    """The records of every study below an output folder, or of the record files (``*.json``) in a folder.

    Args:
        folder: either of the two.
        order: names of studies in the order of the result; others follow.

    Raises:
        BadInput: there is neither, or a record file cannot be read.
    """
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
        import pandas

        rows = pandas.read_parquet(path).itertuples(index=False)
        return tuple(f"{row.data} (JPEG)" if row.stored == "JPEG" else str(row.data) for row in rows)
    named = config.get("data", ())
    return (named,) if isinstance(named, str) else tuple(named)


def markdown(records: Sequence[Record], order: Sequence[str] = ()) -> str:
    """The page: machines, a summary, and a table a study; studies of the order that are not there are named."""
    machines = list(dict.fromkeys(_machine(each) for record in records for each in record.machines))
    parts = [HEAD, _summary(records, machines, order), _machines(machines)]
    parts += [_section(record, machines) for record in records]
    return "\n".join(parts)


def _summary(records: Sequence[Record], machines: Sequence[str], order: Sequence[str]) -> str:
    lines = [
        f"{tally(once((record.study, record.published, record.verdicts) for record in records))}\n",
        "| study | data | scale | machine | measured in | holds | does not | open |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        counts = [sum(verdict.holds is holds for verdict in record.verdicts) for holds in HOLDS]
        cells = [f"[{record.study}](#{record.study})", *_where(record, machines), duration(record.seconds)]
        lines.append(_row([*cells, *(str(count) if count else "" for count in counts)]))
    missing = [name for name in order if name not in {record.study for record in records}]
    lines += [f"\nNot in these records: {', '.join(missing)}."] if missing else []
    return "\n".join([*lines, ""])


def _machines(machines: Sequence[str]) -> str:
    return "\n".join(["Machines:\n", *(f"- **{_letter(i)}**: {_cell(text)}" for i, text in enumerate(machines)), ""])


def _section(record: Record, machines: Sequence[str]) -> str:
    command = ["fenland", "study", record.study, "--preset", record.preset]
    for name, value in record.changed.items():
        command += ["--set", f"{name}={value}"]
    lines = [
        f"## {record.study}\n",
        f"{_cell(record.title)}. {_cell(record.source)}. `{shlex.join(command)}`, {record.date}"
        f"{f', commit {record.commit}' if record.commit else ''}.\n",
        "| | claim | whose | published or expected | measured | data, scale, machine | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    where = "; ".join(_where(record, machines))
    notes = []
    for number, verdict in enumerate(record.verdicts, 1):
        texts = (verdict.claim, verdict.source, verdict.expected, verdict.measured)
        lines.append(_row([str(number), *map(_cell, texts), where, HOLDS[verdict.holds]]))
        if verdict.note:
            notes.append(f"- **{number}** {_cell(verdict.note)}")
    return "\n".join([*lines, *(["", "Notes:\n", *notes] if notes else []), ""])


def _where(record: Record, machines: Sequence[str]) -> list[str]:
    """Data, scale, machine."""
    scale = "as published" if record.published and record.preset != "paper" else ""
    changed = ", ".join(f"{name}={value}" for name, value in record.changed.items())
    words = ", ".join(filter(None, [record.preset, scale, f"with {changed}" if changed else ""]))
    letters = ", ".join(dict.fromkeys(_letter(machines.index(_machine(each))) for each in record.machines))
    return [_cell(", ".join(record.data)) or "none, computed", _cell(words), letters]


def _machine(each: Mapping[str, Any]) -> str:
    device = f"{each['gpu']}, " if each.get("gpu") else ""
    return (
        f"{device}{each.get('cpu')}, {each.get('cores')} cores; Python {each.get('python')}, "
        f"torch {each.get('torch')}, fenland {each.get('fenland')}"
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"M{index}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.replace("<", "&lt;").split())
