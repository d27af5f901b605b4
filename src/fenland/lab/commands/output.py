"""What the commands share: exit codes, consoles, JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# A table that is piped to a file should not be folded to rich's 80 columns.
_PIPED_WIDTH = 140
_CURE = "give the --out of an earlier comparison, sweep or study"


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _piped_width())


def _piped_width() -> int:
    """``COLUMNS`` counts here too; without it a line is long enough for every table."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdigit() and int(text) > 0 else _PIPED_WIDTH


def table(words: Sequence[str] = (), numbers: Sequence[str] = (), bold: int = 0, **look: Any) -> Table:
    """A table without lines between its rows.

    Args:
        words: heads of the columns on the left.
        numbers: heads of those on the right, which are not broken.
        bold: how many of the first columns name the row.
        look: of rich's Table, such as ``title``.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title_justify="left", **look)
    for index, name in enumerate(words):
        named: dict[str, Any] = {"style": "bold", "no_wrap": True} if index < bold else {}
        made.add_column(name, **named)
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def print_json(content: Any) -> None:
    """One JSON document on stdout; NaN becomes null."""
    print(json.dumps(_plain(content), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def existing_folder(out: str) -> Path:
    """A directory that a command reads."""
    folder = Path(out)
    if not folder.is_dir():
        problem = "is a file, not a directory" if folder.exists() else "no such directory"
        raise BadInput("DIR", out, f"{problem}; {_CURE}")
    return folder


def existing_store(out: str) -> Path:
    """The directory of a store that holds runs."""
    from fenland.lab.store.runs import Store

    folder = existing_folder(out)
    if not Store(folder).names():
        raise BadInput("DIR", out, f"no stored run in it; {_CURE}")
    return folder
