"""Measurements by landscape and method: taken once, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import torch

import fenland
from fenland.lab.explore.landscapes import MOMENTA, Landscape
from fenland.lab.explore.measure import METHODS, Measured, measure
from fenland.lab.store.files import writing

_LOG = logging.getLogger(__name__)
# All that a measurement follows from: an edit of any of it makes the cells that are kept worthless.
_SOURCES = ("algebra", "rules", "presets", "theory", "lab/replicas", "lab/explore/measure.py")


def cells(landscapes: Sequence[Landscape], watch: Callable[[str, int, int], None]) -> dict[tuple[str, str], Measured]:
    """Every method on every landscape; a killed run goes on where it was.

    Args:
        landscapes: what to measure.
        watch: is told what comes next, how much is done and how much there is, in units of work.
    """
    plan = [(landscape, method) for landscape in landscapes for method in METHODS]
    total, done = sum(_work(*each) for each in plan), 0
    code, found = _code(), {}
    for landscape, method in plan:
        watch(f"{landscape.name} {method}", done, total)
        found[landscape.name, method] = _cell(landscape, method, code)
        done += _work(landscape, method)
    watch("measured", total, total)
    return found


def _work(landscape: Landscape, method: str) -> int:
    """Gradients a start, roughly."""
    return landscape.steps if method == "SGD" else 2 * landscape.steps * len(landscape.radii)


def _cell(landscape: Landscape, method: str, code: str) -> Measured:
    from fenland.lab.data.cache import directory

    key = json.dumps([fenland.__version__, torch.__version__, code, repr(landscape), MOMENTA, method])
    name = f"explorer-{landscape.name}-{method}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    path = directory() / name
    kept = _read(path)
    if kept is not None:
        return kept
    found = measure(landscape, method)
    try:
        _write(path, found)
    except OSError as error:
        _LOG.warning("not cached, the next run measures again: %s", error)
    return found


def _read(path: Path) -> Measured | None:
    try:
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as stored:
            parts = {name: torch.from_numpy(stored[name]) if name in stored else None for name in _FIELDS}
            return Measured(**parts)  # type: ignore[arg-type]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("measuring again, because %s is broken (%s)", path, error)
        return None


def _write(path: Path, found: Measured) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {name: part.numpy() for name in _FIELDS if (part := getattr(found, name)) is not None}
    with writing(path) as file:
        numpy.savez_compressed(file, **parts)


def _code() -> str:
    """A digest of the sources behind the numbers."""
    root = Path(fenland.__file__).parent
    found = hashlib.sha256()
    for name in _SOURCES:
        files = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]
        for each in files:
            found.update(each.read_bytes())
    return found.hexdigest()


_FIELDS = tuple(Measured.__dataclass_fields__)
