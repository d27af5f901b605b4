"""Stored runs: one folder each, named by the hash of its configuration, there whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store import locks

if TYPE_CHECKING:
    import pandas

    from fenland.lab.training.trainer import RunResult

_HOST = socket.gethostname().replace("-", "_") or "host"
# Results that are None where there is nothing to say; elsewhere null stands for NaN.
_OR_NONE = {"diverged_step"}
_LOG = logging.getLogger(__name__)


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

    def finished(self, name: str, weights: bool = False) -> bool:
        """Whether the run with this hash is stored, with its final weights where they are asked for."""
        folder = self.folder / name
        return (folder / "result.json").is_file() and (not weights or (folder / "weights.pt").is_file())

    def has(self, config: RunConfig) -> bool:
        """Whether nothing is left to do for this run."""
        return self.finished(config.hash, config.weights)

    def load(self, name: str) -> StoredRun:
        """Read a stored run; its metrics are read when asked for.

        Raises:
            BadInput: a file of it cannot be read; the run is named.
        """
        folder = self.folder / name
        try:
            config, result, environment = (
                _read(folder / f"{part}.json") for part in ("config", "result", "environment")
            )
            # JSON has no NaN: a diverged run's numbers are null there.
            numbers = {
                key: math.nan if value is None and key not in _OR_NONE else value for key, value in result.items()
            }
            return StoredRun(RunConfig.from_dict(config), numbers, environment, folder)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            words = " ".join(str(error).split())
            raise BadInput("DIR", folder, f"cannot be read ({words}); remove this folder to run it again") from error

    def runs(self) -> list[StoredRun]:
        """All stored runs, by optimizer and seed; one that cannot be read is left out with a warning."""
        found = []
        for result in self.folder.glob("*/result.json"):
            if not result.parent.name.startswith("."):
                try:
                    found.append(self.load(result.parent.name))
                except BadInput as error:
                    _LOG.warning("left out: %s", error)
        return sorted(found, key=lambda run: (run.config.optimizer, run.config.seed, run.folder.name))

    def save(self, config: RunConfig, result: RunResult, environment: dict[str, Any]) -> Path:
        """Write everything to a temporary folder, then rename it; when another process was first, keep its run.

        The final weights are written where the result has them; a run that is stored without them gets them added.
        """
        import pandas

        target = self.folder / config.hash
        temporary = self.temporary(config.hash)
        try:
            temporary.mkdir(parents=True)
            frame = pandas.DataFrame([record.as_dict() for record in result.records])
            frame.to_parquet(temporary / "metrics.parquet", index=False)
            if result.weights is not None:
                import torch

                torch.save(result.weights, temporary / "weights.pt")
            _write(temporary / "config.json", config.identity())
            _write(temporary / "environment.json", {**environment, "data_dir": config.data_dir})
            _write(temporary / "result.json", result.summary())
            _settle(temporary)
            try:
                temporary.rename(target)
            except OSError:
                if not self.finished(config.hash):
                    raise
                if result.weights is not None and not self.finished(config.hash, weights=True):
                    (temporary / "weights.pt").rename(target / "weights.pt")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def temporary(self, name: str) -> Path:
        """A path of this process's own, which ``clean`` removes when the process is gone."""
        return self.folder / f".tmp-{name}-{_HOST}-{os.getpid()}"

    def claim(self, name: str) -> locks.Claim | None:
        """The right to compute this run; None while somebody else has it.

        Raises:
            OSError: the store cannot be written to.
        """
        return locks.claim(self._live(name))

    def claimed(self, name: str) -> bool:
        """Whether somebody else computes this run at this moment."""
        return locks.held(self._live(name))

    def forget(self, name: str) -> None:
        """Remove what a run that is stored had kept for going on after a kill."""
        live = self._live(name)
        if live.exists():
            mine = self.claim(name)
            if mine is not None:
                mine.release(done=True)

    def clean(self) -> None:
        """Remove the temporary files of this machine's processes that are gone."""
        for folder in self.folder.glob(f".tmp-*-{_HOST}-*"):
            process = folder.name.rpartition("-")[2]
            if process.isdigit() and not _alive(int(process)):
                folder.unlink() if folder.is_file() else shutil.rmtree(folder, ignore_errors=True)

    def _live(self, name: str) -> Path:
        return self.folder / f".live-{name}"


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    path.write_text(json.dumps(finite, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _settle(folder: Path) -> None:
    """Wait until the files are on the disk: a power failure may not leave a renamed folder with empty files."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
