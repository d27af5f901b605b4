"""Checkpoints of a run in the middle of it: whole or not at all, and of this very run or refused.

A file begins with the checksum of what follows. The one before it is kept beside it: where the newest is damaged, a run
goes on from there.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from fenland.lab.config import SCHEMA, RunConfig
from fenland.lab.store.files import write_bytes

_LOG = logging.getLogger(__name__)
# Raise its number when the content changes its meaning.
_MARK = b"fenland checkpoint 3\n"
_BROKEN = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, BadZipFile)


class _Other(ValueError):
    """Whole, and of another run: so is the one before it."""


def before(path: Path) -> Path:
    """Where the last but one checkpoint is."""
    return path.with_name(f"{path.name}.before")


def write(path: Path, config: RunConfig, content: dict[str, Any]) -> None:
    """Write tensors and plain values to a file, and keep the last whole one; a kill leaves at least one of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    torch.save({"run": _identity(config), **content}, held)
    # A damaged one must not take the place of the one before it, from which the run went on.
    if _is_whole(path):
        path.replace(before(path))
    write_bytes(path, _MARK + _sum(held.getbuffer()) + held.getbuffer())


def read(path: Path, config: RunConfig) -> dict[str, Any] | None:
    """What ``write`` wrote last for this configuration and is whole; None, with a message, where nothing is.

    Only tensors and plain values are read: a file from elsewhere cannot run code.
    """
    there = [each for each in (path, before(path)) if each.exists()]
    for number, each in enumerate(there):
        try:
            return _content(each, config)
        except _BROKEN as error:
            more = number + 1 < len(there) and not isinstance(error, _Other)
            end = "the one before it is tried" if more else "the run starts anew"
            _LOG.warning("the checkpoint %s %s: %s", each, " ".join(str(error).split())[:160], end)
            if not more:
                return None
    return None


def _content(path: Path, config: RunConfig) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(io.BytesIO(_held(path)), map_location="cpu", weights_only=True)
    if found.pop("run", None) != _identity(config):
        raise _Other("belongs to another configuration")
    return found


def _held(path: Path) -> memoryview:
    data = path.read_bytes()
    head = len(_MARK) + hashlib.sha256().digest_size
    if not data.startswith(_MARK):
        raise ValueError("is no checkpoint of this version of fenland, or cannot be read")
    if _sum(memoryview(data)[head:]) != data[len(_MARK) : head]:
        raise ValueError("is damaged (it does not match its checksum)")
    return memoryview(data)[head:]


def _is_whole(path: Path) -> bool:
    try:
        _held(path)
    except (OSError, ValueError):
        return False
    return True


def _sum(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _identity(config: RunConfig) -> str:
    return json.dumps({"schema": SCHEMA, **config.identity()}, sort_keys=True)
