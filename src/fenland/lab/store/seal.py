"""Checksums of a stored folder: it is believed only if every file is there, whole, and under its own name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fenland.lab.store.files import feed, write_text

SEAL = "checksums.json"
FILES = ("config.json", "environment.json", "metrics.parquet", "result.json")
WEIGHTS = "weights.pt"


def seal(folder: Path, name: str | None = None, files: Sequence[str] = (*FILES, WEIGHTS)) -> None:
    """Write the checksums of all files of a run.

    Args:
        folder: where the run is.
        name: of the run, where its folder is to be renamed to it; None for the folder's own.
        files: names of them, those that are not there among them.
    """
    sums = {file: digest(folder / file) for file in files if (folder / file).is_file()}
    write_text(folder / SEAL, _text({"run": name or folder.name, "sha256": sums}))


def flaw(folder: Path, weights: bool = False, name: str | None = None, files: Sequence[str] = FILES) -> str:
    """Which file of a stored run cannot be believed, and why; empty where all can.

    Args:
        folder: of the run.
        weights: its final weights are wanted too.
        name: under which it was sealed; None for the folder's own.
        files: names of those that must be there.
    """
    try:
        text = (folder / SEAL).read_text(encoding="utf-8")
        content = json.loads(text)
        stored, sums = content["run"], dict(content["sha256"])
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{SEAL} cannot be read"
    if text != _text(content):
        return f"{SEAL} is not as it was written"
    if stored != (name or folder.name):
        return f"it was stored as {stored}, not under this name"
    missing = {*files, *[WEIGHTS] * weights} - sums.keys()
    if missing:
        return f"{min(missing)} is missing"
    return next((found for file, wanted in sums.items() if (found := _compared(folder / file, wanted))), "")


def _compared(path: Path, wanted: str) -> str:
    try:
        return "" if digest(path) == wanted else f"{path.name} does not match its checksum"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    feed(found, path)
    return found.hexdigest()
