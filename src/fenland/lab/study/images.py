"""The images that a study's networks are trained on: that they are here, which they are, and how they were stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.study.parts import Lab

_JPEG = b"\xff\xd8"  # the first two bytes of every JPEG file


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        BadInput: naming the cure.
    """
    import torch

    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device, False):
        found = ", ".join(name for name, there in here.items() if there)
        raise BadInput("device", device, f"torch sees none here; --set device=cpu (here: {found})")


def identified(runs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs with the identity of their data, which is computed once a data set: it reads every file."""
    from fenland.lab import data

    found: dict[tuple[str, str | None, str | None], str] = {}
    named = []
    for run in runs:
        key = run.data, run.data_dir, run.test_split
        if key not in found:
            found[key] = data.identify(run).data_id
        named.append(dataclasses.replace(run, data_id=found[key]))
    return named


def fetch(names: Iterable[str], lab: Lab) -> None:
    """Have the hub's data sets here before the first run, so that one error says what all runs would.

    Raises:
        BadInput: one is not to be had, naming where a study looks for it.
    """
    from fenland.lab import data
    from fenland.lab.config import RunConfig

    for name in dict.fromkeys(names):
        if name != "digits" and lab.data_dir(name) is None:
            try:
                data.load(RunConfig(name, "mlp", "sgd"))
            except BadInput as error:
                cure = error.cure.split("; ")[0]
                folder = f"--data-root DIR with {name} as DIR/{name}/*.parquet"
                raise BadInput(
                    error.argument, error.value, f"{cure}; give {folder}, or other data with --set"
                ) from error


def sources(names: Iterable[str], lab: Lab) -> pd.DataFrame:
    """One row a data set: ``data``, ``stored`` ("JPEG" where its local files hold lossy images, else empty)."""
    return pd.DataFrame([{"data": name, "stored": _stored(lab.data_dir(name))} for name in dict.fromkeys(names)])


def _stored(folder: str | None) -> str:
    """How the first train image of a folder is compressed, where that loses something."""
    if folder is None:
        return ""
    from pathlib import Path

    from fenland.lab.data.folder import find

    found = find("data-root", Path(folder))
    first = next(found.read(found.train).encoded())
    content = first.read_bytes() if isinstance(first, Path) else first or b""
    return "JPEG" if content.startswith(_JPEG) else ""
