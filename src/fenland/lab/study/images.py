"""The images that a study's networks are trained on: that they are here, which they are, and how they were stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from fenland.lab.config import RunConfig
    from fenland.lab.study.parts import Lab

# Shape of an image, classes and train examples of the sets that have a short name: where they are not here yet.
SETS: Mapping[str, tuple[tuple[int, int, int], int, int]] = {
    "digits": ((1, 8, 8), 10, 1437), "mnist": ((1, 28, 28), 10, 60_000), "cifar10": ((3, 32, 32), 10, 50_000),
    "cifar100": ((3, 32, 32), 100, 50_000),
}  # fmt: skip
_JPEG = b"\xff\xd8"  # the first two bytes of every JPEG file


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have."""
    if not device_is_here(device):
        found = ", ".join(filter(device_is_here, ("cpu", "cuda", "mps")))
        raise BadInput("device", device, f"torch sees none here; --set device=cpu (here: {found})")


def device_is_here(device: str) -> bool:
    """Whether torch sees it."""
    from fenland.lab.sweep.auto import devices

    return devices().get(device, False)


def about_data(run: RunConfig) -> tuple[tuple[int, int, int], int, int]:
    """Shape of an image, classes, train examples that the run uses; a named set need not be here."""
    if run.data in SETS and run.data_dir is None:
        shape, classes, count = SETS[run.data]
    else:
        from fenland.lab import data

        images = data.load(dataclasses.replace(run, limit=None))
        shape, classes, count = images.shape, len(images.classes), len(images.train)
    return shape, classes, min(count, run.limit or count)


def data_folder(root: Path | None, data: str) -> str | None:
    """The folder below a root that holds a data set; None for the embedded one and the hub."""
    folder = None if root is None or data == "digits" else root / data
    return str(folder) if folder is not None and folder.is_dir() else None


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
    """Have the hub's data sets here before the first run, so that one error says what all runs would."""
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
