"""Checkpoints of a run in the middle of it: whole or not at all, and of this very run or refused."""

from __future__ import annotations

import json
import logging
import os
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
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
        return _refuse(path, f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return _refuse(path, "is no checkpoint of this version of fenland")
    if content.get("run") != _identity(config):
        return _refuse(path, "belongs to another configuration")
    return content


def _refuse(path: Path, why: str) -> None:
    _LOG.warning("the checkpoint %s %s: the run starts anew", path, why)


def _identity(config: RunConfig) -> str:
    return json.dumps({"schema": SCHEMA, **config.identity()}, sort_keys=True)
