"""Stored runs: one folder each, named by the hash of its configuration, there whole or not at all."""

from __future__ import annotations

import logging
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store import files, locks
from fenland.lab.store.files import Damaged
from fenland.lab.store.seal import FILES, SEAL, WEIGHTS, flaw, seal

if TYPE_CHECKING:
    import pandas

    from fenland.lab.training.result import RunResult

# Results that are None where there is nothing to say; elsewhere null stands for NaN.
_OR_NONE = {"diverged_step"}
_CURE = "start the command that made it again to redo this run, or remove its folder"
# Fields of a run that say where its data and its model lie, and what the data are tested on: no part of what it is, so
# that the environment keeps them.
PLACES = ("data_dir", "test_split", "model_dir")
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

    @property
    def placed(self) -> RunConfig:
        """The configuration with where the data and the model lay when it ran, to load them again."""
        places: dict[str, Any] = {name: self.environment.get(name) for name in PLACES}
        return replace(self.config, **places)

    def metrics(self) -> pandas.DataFrame:
        """One row per epoch, see ``EpochRecord``."""
        return files.read_table(self.folder / "metrics.parquet")


class Store:
    """The stored runs of an output folder, in ``root/runs``. Making a Store writes nothing.

    Args:
        root: the output folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "runs"
        # What was found of a run, and the state of its files then: sums are made again only where a file changed.
        self._known: dict[tuple[str, bool], tuple[Any, str]] = {}

    def flaw(self, name: str, weights: bool = False) -> str:
        """Which file of a stored run cannot be believed, and why; empty where all can.

        Args:
            name: the hash of the run, whose folder exists.
            weights: its final weights are wanted too.
        """
        folder = self.folder / name
        state = tuple(_state(folder / file) for file in (SEAL, *FILES, WEIGHTS))
        known = self._known.get((name, weights))
        if known is None or known[0] != state:
            known = self._known[name, weights] = state, flaw(folder, weights)
        return known[1]

    def damaged(self, name: str) -> str:
        """What is wrong with a stored run; empty where nothing is, and where none is stored."""
        return self.flaw(name) if (self.folder / name).is_dir() else ""

    def finished(self, name: str, weights: bool = False) -> bool:
        """Whether the run with this hash is stored and undamaged, with its final weights where they are asked for."""
        return (self.folder / name).is_dir() and not self.flaw(name, weights)

    def has(self, config: RunConfig) -> bool:
        """Whether this run is stored and undamaged, with its final weights if the configuration asks for them."""
        return self.finished(config.hash, config.weights)

    def names(self) -> list[str]:
        """The hashes of all stored runs, damaged ones too."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and path.name[0] != ".")

    def load(self, name: str) -> StoredRun:
        """Read a stored run by its hash; its metrics are read when you ask for them.

        Raises:
            Damaged: a file of it cannot be believed; it is named.
        """
        folder = self.folder / name
        wrong = self.flaw(name) if folder.is_dir() else "it is missing"
        if wrong:
            raise Damaged(folder, wrong, _CURE)
        config, result, environment = (
            files.read_json(folder / f"{part}.json", _CURE) for part in ("config", "result", "environment")
        )
        # JSON has no NaN: a diverged run's numbers are null there.
        numbers = {key: math.nan if value is None and key not in _OR_NONE else value for key, value in result.items()}
        try:
            return StoredRun(RunConfig.from_dict(config), numbers, environment, folder)
        except (ValueError, TypeError) as error:
            raise Damaged(folder / "config.json", f"of another version: {error}", _CURE) from error

    def runs(self) -> list[StoredRun]:
        """All stored runs, sorted by optimizer and seed; a damaged one is left out with a warning."""
        found = []
        for name in self.names():
            try:
                found.append(self.load(name))
            except BadInput as error:
                _LOG.warning("left out: %s", error)
        return sorted(found, key=lambda run: (run.config.optimizer, run.config.seed, run.folder.name))

    def save(self, config: RunConfig, result: RunResult, environment: dict[str, Any]) -> Path:
        """Store a run, whole or not at all. If another process was first, its run stays.

        A damaged run that stands in the way is set aside under a name that starts with a dot. The final weights are
        written where the result has them; a run that is stored without them gets them added.
        """
        import pandas

        target = self.folder / config.hash
        temporary = files.own_name(target)
        try:
            temporary.mkdir(parents=True)
            with files.writing(temporary / "metrics.parquet") as file:
                pandas.DataFrame([record.as_dict() for record in result.records]).to_parquet(file, index=False)
            if result.weights is not None:
                import torch

                with files.writing(temporary / WEIGHTS) as file:
                    torch.save(result.weights, file)
            files.write_json(temporary / "config.json", _finite(config.identity()))
            files.write_json(temporary / "environment.json", _finite({**environment, **_places(config)}))
            files.write_json(temporary / "result.json", _finite(result.summary()))
            seal(temporary, config.hash)
            self._settle(temporary, target, with_weights=result.weights is not None)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def _settle(self, temporary: Path, target: Path, with_weights: bool) -> None:
        """Bring a whole run to its place, or what it has more than the one that stands there."""
        if self.damaged(target.name):
            self.set_aside(target.name)
        try:
            temporary.rename(target)
        except OSError:
            if not self.finished(target.name):
                raise
            if with_weights and not self.finished(target.name, weights=True):
                (temporary / WEIGHTS).rename(target / WEIGHTS)
                seal(target)
        files.settle(self.folder)

    def set_aside(self, name: str) -> Path:
        """Rename the folder of a damaged run, so that it can be run again and still be looked at; the new name."""
        for number in range(1, 1000):
            aside = self.folder / f".damaged-{name}-{number}"
            if not aside.exists():
                (self.folder / name).rename(aside)
                _LOG.warning("the damaged run %s was set aside as %s", self.folder / name, aside)
                return aside
        raise OSError(f"{self.folder}: a thousand damaged copies of {name}; remove them")

    def temporary(self, name: str) -> Path:
        """A path of this process's own, which ``clean`` removes when the process is gone."""
        return files.own_name(self.folder / name)

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
        for folder in files.clean(self.folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _live(self, name: str) -> Path:
        return self.folder / f".live-{name}"


def _places(config: RunConfig) -> dict[str, str | None]:
    """Folders whole: a relative one says nothing to a command that is given elsewhere."""
    found = {name: getattr(config, name) for name in PLACES}
    return {
        name: os.path.abspath(os.path.expanduser(each)) if each and name.endswith("_dir") else each
        for name, each in found.items()
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
