"""The gallery of studies: their verdicts and one figure each, from what `fenland study` stored."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fenland.lab.errors import BadInput
from fenland.lab.study.index import studies_below
from fenland.lab.study.kept import CONFIG, VERDICTS, read_study
from fenland.lab.study.parts import Verdict
from fenland.lab.study.tally import figure_of, tally

_PIXELS, _COLOURS = 760, 48  # across; a figure of few colours is a third of the size then, and looks the same


def gallery(folder: Path, beside: Path) -> list[dict[str, Any]]:
    """The studies below a folder, in the order of their names; links are relative to the folder `beside`.

    Raises:
        BadInput: there is none.
    """
    found = studies_below(folder) if folder.is_dir() else []
    if not found:
        cure = "holds no finished study; give the --out of fenland study" if folder.is_dir() else "no such directory"
        raise BadInput("studies", folder, cure)
    return [_study(each, beside) for each in found]


def _study(folder: Path, beside: Path) -> dict[str, Any]:
    listed, about = read_study(folder, VERDICTS), read_study(folder, CONFIG)
    figures = {each["name"]: each for each in listed["figures"]}
    verdicts = [Verdict(**each) for each in listed["verdicts"]]
    page = folder / "report.html"
    shown = figure_of(verdicts[0].figure if verdicts else "", list(figures))
    return {
        "name": listed["study"],
        "title": listed["title"],
        "preset": about.get("preset", ""),
        "headline": tally(verdicts),
        "verdicts": [(verdict, figure_of(verdict.figure, list(figures))) for verdict in verdicts],
        "page": quote(Path(os.path.relpath(page, beside)).as_posix()) if page.is_file() else "",
        "figure": _figure(folder / "figures" / f"{shown}.png", figures[shown]) if shown else None,
    }


def _figure(path: Path, about: dict[str, str]) -> dict[str, str] | None:
    """The picture as a data: address, with its words; None where the file is gone."""
    if not path.is_file():
        return None
    from PIL import Image

    with Image.open(path) as picture:
        width = min(_PIXELS, picture.width)
        size = width, round(picture.height * width / picture.width)
        opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        small = opaque.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    written = io.BytesIO()
    small.quantize(_COLOURS).save(written, "PNG", optimize=True)
    data = base64.b64encode(written.getvalue()).decode("ascii")
    return {
        "source": f"data:image/png;base64,{data}", "alt": about["description"], "title": about["title"],
        "width": str(size[0]), "height": str(size[1]),
    }  # fmt: skip
