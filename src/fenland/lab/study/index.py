"""One page over a folder: the verdicts of every study below it, and the comparisons."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fenland.lab.report.templating import fill
from fenland.lab.store.files import Damaged, read_json, write_text
from fenland.lab.study.kept import CONFIG, FAILURE, VERDICTS, read_study
from fenland.lab.study.parts import Verdict
from fenland.lab.study.tally import figure_of, once, tally

# A store in a store in a store: deeper than that nobody looks, and a home directory is not searched to its end.
_DEPTH = 4


def write_index(out: Path, order: Sequence[str] = ()) -> Path:
    """Write ``out/index.html`` over everything below ``out``; its links are relative, so the folder can be moved."""
    folders = list(_below(out, _DEPTH))
    studies = [found for folder in folders if (found := _study(folder, out))]
    studies.sort(key=lambda each: (place_in(order, each["name"]), each["page"]))
    comparisons = [_comparison(folder, out) for folder in folders if is_comparison(folder)]
    if not studies and not comparisons:
        raise FileNotFoundError(f"no study and no comparison is stored under {out}")
    counted = [(each["name"], each["published"], [verdict for verdict, _ in each["verdicts"]]) for each in studies]
    failed = [study["name"] for study in studies if study["error"]]
    context = {
        "title": "Studies" if studies and not comparisons else "Studies and comparisons" if studies else "Comparisons",
        "headline": _headline(studies, once(counted), comparisons),
        "caveats": [f"Failed: {', '.join(failed)}; what follows of them is from an earlier run."] if failed else [],
        "studies": studies,
        "comparisons": sorted(comparisons, key=lambda each: each["name"]),
    }
    path = out / "index.html"
    write_text(path, fill("index.html.j2", context))
    return path


def is_study(folder: Path) -> bool:
    """Whether a study is stored in this very folder."""
    return (folder / VERDICTS).is_file() and (folder / CONFIG).is_file()


def is_comparison(folder: Path) -> bool:
    """Whether a comparison and its report are in this very folder."""
    return (folder / "compare.json").is_file() and (folder / "report.html").is_file()


def studies_below(out: Path) -> list[Path]:
    """The folders of all stored studies."""
    return [folder for folder in _below(out, _DEPTH) if is_study(folder)]


def comparisons_below(out: Path) -> list[Path]:
    """The folders of all comparisons that have a report, ``out`` itself among them where it is one."""
    return [folder for folder in _below(out, _DEPTH) if is_comparison(folder)]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """The folder and those in it; a store's runs and hidden folders hold neither studies nor comparisons."""
    yield folder
    if depth and not is_study(folder):
        with os.scandir(folder) as entries:  # knows folders without a question for each of many files
            inside = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
        for name in inside:
            if name not in ("runs", "pieces") and name[0] != ".":
                yield from _below(folder / name, depth - 1)


def _headline(studies: list[dict[str, Any]], verdicts: list[Verdict], comparisons: list[dict[str, str]]) -> str:
    parts = []
    if studies:
        count = f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}"
        parts.append(f"{count}. {tally(verdicts)}")
    if comparisons:
        parts.append(f"{len(comparisons)} comparison{'' if len(comparisons) == 1 else 's'}.")
    return " ".join(parts)


def _study(folder: Path, out: Path) -> dict[str, Any] | None:
    listed, about, error = {}, {}, ""
    try:
        if is_study(folder):
            listed, about = read_study(folder, VERDICTS), read_study(folder, CONFIG)
        if (folder / FAILURE).is_file():
            error = f"The last run failed: {read_json(folder / FAILURE, 'run the study again')['error']}"
    except Damaged as damage:
        error = str(damage)
    if not (listed or error):
        return None
    names = [figure["name"] for figure in listed.get("figures", ())]
    verdicts = [Verdict(**each) for each in listed.get("verdicts", ())]
    name = str(listed.get("study", folder.name))
    page = folder / "report.html"
    return {
        "id": "study-" + folder.relative_to(out).as_posix().replace("/", "-").replace(".", name),
        "name": name,
        "published": bool(about.get("published")),
        "title": listed.get("title", name),
        "page": page.relative_to(out).as_posix() if page.is_file() else "",
        "about": f"{name}, preset {about['preset']}: {tally(verdicts)}" if about else name,
        "verdicts": [(verdict, figure_of(verdict.figure, names)) for verdict in verdicts],
        "error": error,
    }


def _comparison(folder: Path, out: Path) -> dict[str, str]:
    from fenland.lab.report.outcome import decide
    from fenland.lab.store.records import read_records

    try:
        headline = decide(read_records(folder)).headline
    except (FileNotFoundError, ValueError) as error:
        headline = f"Cannot be read: {error}"
    name = folder.relative_to(out).as_posix()
    page = (folder / "report.html").relative_to(out).as_posix()
    return {"name": name if name != "." else out.resolve().name, "page": page, "headline": headline}


def place_in(order: Sequence[str], name: str) -> int:
    """Where a study stands; those that are not listed come last."""
    return order.index(name) if name in order else len(order)
