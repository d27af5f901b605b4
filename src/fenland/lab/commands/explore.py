"""``fenland explore``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fenland.lab import logs
from fenland.lab.commands import output
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

_NAME = "explorer.html"


@dataclass(frozen=True)
class Explore:
    """Write a page to play with: choose landscape, method, rho, learning rate and momentum, and see every step.

    It is one HTML file that needs no network. It shows trajectories with their ascent points, how many starts reach a
    minimum, and the predicted limits beside the simulated ones. The first call measures for some minutes and keeps the
    result in the cache folder (FENLAND_CACHE, else ~/.cache/fenland).

    Example: fenland explore --out out/explorer.html --studies out/studies

    Exit codes: 0 written, 1 not written, 2 wrong arguments.
    """

    out: Annotated[str, option(metavar="FILE|DIR")] = "out"
    """The page: a name that ends in .html, or a folder for explorer.html."""
    studies: Annotated[str, option(metavar="DIR")] = ""
    """Output directory of fenland study: its verdicts and figures become the page's gallery."""

    def run(self, arguments: list[str]) -> int:
        """Write it and print its path."""
        path = _path(self.out)
        with logs.waiting("torch"):
            from fenland.lab.explore import write_explorer

        with _progress(output.console(stderr=True)) as watch:
            write_explorer(path, Path(self.studies) if self.studies else None, watch)
        print(path)
        return output.OK


def _path(out: str) -> Path:
    if not out.strip():
        raise BadInput("out", out, "give a file such as out/explorer.html, or a folder")
    given = Path(out)
    if given.suffix.lower() in (".html", ".htm") and not given.is_dir():
        path = given
    elif given.suffix and not given.is_dir():
        raise BadInput(
            "out", out, "a page's name ends in .html; a folder that does not exist yet has no dot in its name"
        )
    else:
        path = given / _NAME
    for folder in path.parents:
        if folder.exists():
            if not folder.is_dir():
                raise BadInput("out", out, f"{folder} is a file; give another folder")
            if not os.access(folder, os.W_OK):  # said before a minute of measuring, not after it
                raise BadInput("out", out, f"{folder} cannot be written to; give another folder")
            break
    if path.is_dir():
        raise BadInput("out", out, f"{path} is a folder; give another name")
    return path


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, lines elsewhere."""
    if not console.is_terminal:

        def line(what: str, done: int, total: int) -> None:
            if done < total and (what.endswith(" SGD") or not done):
                console.print(f"  {done / total:4.0%}  {what.split(' ')[0]}", highlight=False)

        yield line
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %")
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task("measuring", total=None)
        yield lambda what, done, total: bars.update(task, description=what, completed=done, total=total)
