"""What the commands share: exit codes, consoles, JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

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
    """A directory that a command reads.

    Raises:
        BadInput: there is none.
    """
    folder = Path(out)
    if not folder.is_dir():
        problem = "is a file, not a directory" if folder.exists() else "no such directory"
        raise BadInput("DIR", out, f"{problem}; {_CURE}")
    return folder


def existing_store(out: str) -> Path:
    """The directory of a store that holds runs.

    Raises:
        BadInput: it does not exist, or holds none.
    """
    from fenland.lab.store.runs import Store

    folder = existing_folder(out)
    if not Store(folder).names():
        raise BadInput("DIR", out, f"no stored run in it; {_CURE}")
    return folder
