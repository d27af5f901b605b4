"""The gallery of studies: their verdicts and one figure each, from what `fenland study` stored."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from fenland.lab.errors import BadInput
from fenland.lab.study.index import studies_below
from fenland.lab.study.kept import CONFIG, VERDICTS, read_study
from fenland.lab.study.parts import Verdict
from fenland.lab.study.tally import figure_of, tally


def gallery(folder: Path, beside: Path) -> list[dict[str, Any]]:
    """The studies below a folder, in the order of their names; links are relative to the folder `beside`."""
    found = studies_below(folder) if folder.is_dir() else []
    if not found:
        cure = "holds no finished study; give the --out of fenland study" if folder.is_dir() else "no such directory"
        raise BadInput("studies", folder, cure)
    return [_study(each, beside, f"entry-{number}") for number, each in enumerate(found, 1)]


def _study(folder: Path, beside: Path, prefix: str) -> dict[str, Any]:
    listed, about = read_study(folder, VERDICTS), read_study(folder, CONFIG)
    figures = [each["name"] for each in listed["figures"]]
    verdicts = [Verdict(**each) for each in listed["verdicts"]]
    page = folder / "report.html"
    shown = figure_of(verdicts[0].figure if verdicts else "", figures)
    return {
        "name": listed["study"],
        "title": listed["title"],
        "preset": about.get("preset", ""),
        "headline": tally(verdicts),
        "verdicts": [(verdict, figure_of(verdict.figure, figures)) for verdict in verdicts],
        "page": quote(Path(os.path.relpath(page, beside)).as_posix()) if page.is_file() else "",
        "figure": _figure(page, shown, prefix) if shown else None,
    }


def _figure(page: Path, name: str, prefix: str) -> Markup | None:
    """A study's figure as it stands in its page, in the colours of whatever page shows it; None where it is not there.

    Its ids get a prefix, since another study may have a figure of the same name.
    """
    if not page.is_file():
        return None
    pattern = rf'<figure id="figure-{re.escape(name)}".*?(<svg .*?</svg>)'
    found = re.search(pattern, page.read_text(encoding="utf-8"), re.DOTALL)
    return Markup(re.sub(rf'(?<=["# ]){re.escape(name)}-', f"{prefix}-{name}-", found[1])) if found else None
