"""Checkpoints of a run in the middle of it: whole or not at all, and of this very run or refused."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from fenland.lab.config import SCHEMA, RunConfig

_LOG = logging.getLogger(__name__)
# Raise it when the content changes its meaning.
_FORMAT = 1


def write(path: Path, config: RunConfig, content: dict[str, Any]) -> None:
    """Write tensors and plain values to a file beside ``path``, then rename it: a kill leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for all: a run has one writer at a time, and the next one overwrites what a killed one left.
    temporary = path.with_name(f"{path.name}.part")
    try:
        torch.save({"format": _FORMAT, "run": _identity(config), **content}, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, config: RunConfig) -> dict[str, Any] | None:
    """What ``write`` wrote for this configuration; None, with a message, for anything else.

    Only tensors and plain values are read: a file from elsewhere cannot run code.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, BadZipFile) as error:
        why = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    else:
        why = _wrong(content, config)
    if why:
        _LOG.warning("the checkpoint %s %s: the run starts anew", path, why)
        return None
    found: dict[str, Any] = content
    return found


def _wrong(content: Any, config: RunConfig) -> str:
    """Why the content is of no use; empty when it is."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return "is no checkpoint of this version of fenland"
    return "" if content.get("run") == _identity(config) else "belongs to another configuration"


def _identity(config: RunConfig) -> str:
    return json.dumps({"schema": SCHEMA, **config.identity()}, sort_keys=True)
