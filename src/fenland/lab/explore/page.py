"""Write the explorer: measure (or take what is kept), gather the gallery, fill the template."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fenland import __version__
from fenland.lab.explore.cells import cells
from fenland.lab.explore.gallery import gallery
from fenland.lab.explore.landscapes import LANDSCAPES, Landscape
from fenland.lab.explore.measure import SHOWN, STARTS
from fenland.lab.explore.payload import payload
from fenland.lab.figures.style import DARK, LIGHT
from fenland.lab.store.files import write_text

LARGEST = 5_000_000  # bytes of the page; beyond that the figures of the gallery stay away


def write_explorer(
    path: Path,
    studies: Path | None = None,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
    landscapes: Sequence[Landscape] = LANDSCAPES,
) -> Path:
    """Write the explorer: one page that needs no other file and no network.

    Args:
        path: where the page is written; it is never there in part.
        studies: a folder that `fenland study` wrote, for the gallery; None for no gallery.
        watch: a function that is told the progress: what comes next, how much is done, how much there is.
        landscapes: the landscapes that the page offers.

    Returns:
        `path`.

    Raises:
        BadInput: the folder `studies` holds no study.
    """
    shown = gallery(studies, path.parent) if studies is not None else []
    document = payload(landscapes, cells(landscapes, watch))
    text = render(document, shown)
    if len(text.encode()) > LARGEST:
        text = render(document, [each | {"figure": None} for each in shown])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def render(document: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:
    """The page as text."""
    sources = [PackageLoader("fenland.lab.explore"), PackageLoader("fenland.lab.report")]
    environment = Environment(
        loader=ChoiceLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # In a script element nothing but "</" could end the text early.
    data = json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("explore.html.j2").render(
        light=LIGHT, dark=DARK, version=__version__, data=Markup(data), document=document, studies=shown,
        steps=SHOWN, starts=STARTS,
    )  # fmt: skip
