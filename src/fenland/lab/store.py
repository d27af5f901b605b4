"""Stored runs: one folder each, named by the hash of its configuration, there whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.config import RunConfig

if TYPE_CHECKING:
    import pandas

    from fenland.lab.trainer import RunResult

_HOST = socket.gethostname().replace("-", "_") or "host"


@dataclass(frozen=True)
class StoredRun:
    """A run that is done.

    Args:
        config: what was run.
        result: the last numbers, see ``RunResult.summary``.
        environment: versions, machine and time.
        folder: where its files are.
    """

    config: RunConfig
    result: dict[str, Any]
    environment: dict[str, Any]
    folder: Path

    def metrics(self) -> pandas.DataFrame:
        """One row per epoch, see ``EpochRecord``."""
        import pandas

        return pandas.read_parquet(self.folder / "metrics.parquet")


class Store:
    """The runs under ``root/runs``. Making a Store writes nothing.

    Args:
        root: the output directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "runs"

    def finished(self, name: str) -> bool:
        """Whether the run with this hash is stored."""
        return (self.folder / name / "result.json").is_file()

    def load(self, name: str) -> StoredRun:
        """Read a stored run; its metrics are read when asked for."""
        folder = self.folder / name
        config, result, environment = (_read(folder / f"{part}.json") for part in ("config", "result", "environment"))
        # JSON has no NaN: a diverged run's numbers are null there.
        numbers = {key: math.nan if value is None else value for key, value in result.items()}
        return StoredRun(RunConfig.from_dict(config), numbers, environment, folder)

    def runs(self) -> list[StoredRun]:
        """All stored runs, by optimizer and seed."""
        names = [folder.parent.name for folder in self.folder.glob("*/result.json")]
        found = [self.load(name) for name in names if not name.startswith(".")]
        return sorted(found, key=lambda run: (run.config.optimizer, run.config.seed, run.folder.name))

    def save(self, config: RunConfig, result: RunResult, environment: dict[str, Any]) -> Path:
        """Write everything to a temporary folder, then rename it; when another process was first, keep its run."""
        import pandas

        target = self.folder / config.hash
        temporary = self.folder / f".tmp-{config.hash}-{_HOST}-{os.getpid()}"
        try:
            temporary.mkdir(parents=True)
            frame = pandas.DataFrame([record.as_dict() for record in result.records])
            frame.to_parquet(temporary / "metrics.parquet", index=False)
            _write(temporary / "config.json", config.identity())
            _write(temporary / "environment.json", {**environment, "data_dir": config.data_dir})
            _write(temporary / "result.json", result.summary())
            try:
                temporary.rename(target)
            except OSError:
                if not self.finished(config.hash):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def clean(self) -> None:
        """Remove the temporary folders of this machine's processes that are gone."""
        for folder in self.folder.glob(f".tmp-*-{_HOST}-*"):
            process = folder.name.rpartition("-")[2]
            if process.isdigit() and not _alive(int(process)):
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    path.write_text(json.dumps(finite, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
