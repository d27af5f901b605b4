"""The files of a data set's folder, without what systems and archives leave between them."""

from __future__ import annotations

import os
from pathlib import Path


def visible(folder: Path) -> list[Path]:
    """All files below a folder in a fixed order, without hidden ones and what macOS leaves in archives."""
    found: list[Path] = []
    been = {folder.resolve()}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        inside = {name: Path(place, name).resolve() for name in sorted(folders) if shown(name)}
        folders[:] = [name for name, real in inside.items() if real not in been]  # a link may lead back
        been |= set(inside.values())
        found += [Path(place, name) for name in sorted(files) if shown(name)]
    return found


def _raise(error: OSError) -> None:
    raise error


def shown(name: str) -> bool:
    """Whether a file or a folder of this name is looked at."""
    return not name.startswith(".") and name != "__MACOSX"
