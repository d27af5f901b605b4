"""The cache of decoded data sets: one ``.npz`` per set, checked on reading, rebuilt where broken."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fenland.lab.data.images import Images
from fenland.lab.store.files import writing

log = logging.getLogger(__name__)

# Part of every cache name: raise it when the decoding changes.
FORMAT = 2


def directory() -> Path:
    """``$FENLAND_CACHE``, else ``~/.cache/fenland``."""
    chosen = os.environ.get("FENLAND_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "fenland"


def cached(key: str, name: str, build: Callable[[], Images]) -> Images:
    """Read the decoded set ``key``, or build and keep it.

    A cache that cannot be read is rebuilt (zip checks every byte by CRC), one that cannot be written is done without.
    """
    path = directory() / f"images-v{FORMAT}-{key}.npz"
    found = _read(path, name)
    if found is not None:
        return found
    built = build()
    try:
        _write(path, built)
    except OSError as error:
        log.warning("not cached, the next run decodes again: %s", error)
    return built


def _read(path: Path, name: str) -> Images | None:
    try:
        # Opened here, because numpy forgets to close what turns out to be broken.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Images(
                name,
                stored["train"],
                stored["train_labels"],
                stored["test"],
                stored["test_labels"],
                tuple(str(label) for label in stored["classes"]),
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("rebuilding the broken cache %s (%s)", path, error)
        return None


def _write(path: Path, images: Images) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        np.savez(
            file,
            train=images.train,
            train_labels=images.train_labels,
            test=images.test,
            test_labels=images.test_labels,
            classes=np.array(images.classes, dtype=np.str_),
        )
