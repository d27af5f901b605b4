"""The laboratory that a study works in: training through the sweep, tables that are computed once, progress."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fenland.lab.config import RunConfig
from fenland.lab.store.files import read_table, write_text
from fenland.lab.store.runs import Store
from fenland.lab.study.identity import code_of, roots_of
from fenland.lab.study.images import data_folder
from fenland.lab.study.kept import seconds_of
from fenland.lab.study.pieces import Task, compute

if TYPE_CHECKING:
    import pandas
    from rich.console import Console
    from torch import Tensor

    from fenland.lab.store.records import Records
    from fenland.lab.study.parts import Piece
    from fenland.lab.study.study import Study
    from fenland.lab.sweep.cluster import Cluster

T = TypeVar("T")
# Without a terminal a long loop says where it is when this long has passed since the last line.
_LINE_EVERY_SECONDS = 10.0


class Laboratory:
    """What `fenland.lab.study.parts.Lab` promises, on one output folder."""

    def __init__(
        self,
        out: Path,
        study: Study,
        console: Console,
        workers: int = 1,
        data_root: Path | None = None,
        ray: Cluster | str | None = None,
        trackers: Sequence[str] = (),
    ) -> None:
        self.workers = workers
        self.trained: dict[str, RunConfig] = {}
        self.seconds: dict[str, float] = {}  # of computing, by piece and run, whoever made them and when
        self.apart = 0.0  # seconds of this process in which pieces and runs were made
        self._out = out
        self._study = study
        self._console = console
        self._data_root = data_root
        self._ray = ray
        self._trackers = trackers
        self._store = Store(out)
        self._live = False

    def train(self, runs: Sequence[RunConfig]) -> Records:
        """Train what is not stored yet, and return the records of exactly these runs (diverged ones are results).

        Raises:
            RuntimeError: a run failed; the others are stored.
            BadInput: the data of a run are not at hand.
        """
        from fenland.lab.store.records import read_records
        from fenland.lab.sweep.sweep import sweep
        from fenland.lab.sweep.trackers import tracked

        begun = time.process_time()
        known = {run.hash: run for run in map(self._identified, runs)}
        self.trained |= known
        self._drop_stale(known)
        pending = [run for run in known.values() if not self._store.has(run)]
        if pending:
            cluster: dict[str, Any] = {} if self._ray is None else {"ray": self._ray}
            with self._watching(pending) as shown, tracked(shown, self._trackers, self._out) as watcher:
                done = sweep(pending, self._store, watcher, self.workers, **cluster)
            if done.failed:
                first = done.failed[0]
                raise RuntimeError(
                    f"{len(done.failed)} of {len(known)} runs failed, the first ({first.run}): {first.error}"
                )
        records = read_records(self._out, runs=list(known))
        # Of the process: the wall's are those of whoever else the machine works for.
        spent = records.results["process_seconds"].astype(float)
        self.seconds |= dict(zip(records.results["run"], spent, strict=True))
        self.apart += time.process_time() - begun
        return records

    def weights(self, run: RunConfig) -> Mapping[str, Tensor]:
        """The final state dict of a run that was trained with ``weights=True``."""
        path = self.weights_file(run)
        if not path.is_file():
            raise FileNotFoundError(f"no weights in {path.parent}: train this run with weights=True")
        return read_weights(path)

    def weights_file(self, run: RunConfig) -> Path:
        """Where `weights` reads them, for pieces that are computed in another process."""
        return self._store.folder / self._identified(run).hash / "weights.pt"

    def data_dir(self, data: str) -> str | None:
        """The folder of local parquet files for a data set; None for the embedded one and the hub."""
        return data_folder(self._data_root, data)

    def keep_all(self, pieces: Sequence[Piece], what: str) -> list[pandas.DataFrame]:
        """Tables by the content of their keys and the code that computes them; found again after a kill.

        Worker processes share them where that saves time. With a Ray cluster they stay in this process: runs of a
        sweep go there, pieces do not.
        """
        begun = time.process_time()
        paths = [self._path(piece) for piece in pieces]
        stored = {path: seconds for path in paths if (seconds := seconds_of(path)) is not None}
        missing = {path: Task(piece, path) for path, piece in zip(paths, pieces, strict=True) if path not in stored}
        for path in filter(Path.is_file, missing):
            self._console.print(f"  {path} is damaged, and is computed again", highlight=False, soft_wrap=True)
        done = compute(missing.values(), self.workers if self._ray is None else 1)
        for _ in self.track(itertools.chain(stored, done), len(stored) + len(missing), what):
            pass
        self.seconds |= {path.name: stored.get(path) or seconds_of(path) or 0.0 for path in paths}
        self.apart += time.process_time() - begun
        return [read_table(path) for path in paths]

    def _path(self, piece: Piece) -> Path:
        """The file of a piece, in a folder that exists."""
        of = [self._study.name, piece.name, piece.key, code_of(*roots_of(piece.compute))]
        digest = hashlib.sha256(json.dumps(of, sort_keys=True, default=_refuse).encode()).hexdigest()[:16]
        return self._pieces() / f"{self._study.name}-{piece.name}-{digest}.parquet"

    def _pieces(self) -> Path:
        folder = self._out / "pieces"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _drop_stale(self, runs: Iterable[str]) -> None:
        """Remove stored runs, and what is kept of unfinished ones, that other code trained; note the code of these."""
        code = training_code()
        for run in runs:
            note = self._pieces() / f"run-{run}.txt"
            if note.is_file() and note.read_text(encoding="utf-8") == code:
                continue
            if self._store.claimed(run):  # somebody computes it at this moment
                continue
            shutil.rmtree(self._store.folder / run, ignore_errors=True)
            self._store.forget(run)
            write_text(note, code)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """Pass the items on and show progress: a bar on a terminal, a line now and then elsewhere."""
        if self._live:
            yield from items
        elif self._console.is_terminal:
            yield from self._bar(items, total, what)
        else:
            yield from self._lines(items, total, what)

    def _bar(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        from rich.progress import track

        self._live = True
        try:
            yield from track(items, description=what, total=total, console=self._console, transient=True)
        finally:
            self._live = False

    def _lines(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        spoke = time.monotonic()
        for number, item in enumerate(items):
            if time.monotonic() - spoke > _LINE_EVERY_SECONDS:
                self._console.print(f"  {what}: {number}/{total}", highlight=False, soft_wrap=True)
                spoke = time.monotonic()
            yield item

    @contextlib.contextmanager
    def _watching(self, pending: Sequence[RunConfig]) -> Iterator[Any]:
        """The sweep's own display; inside a bar of `track` it would be a second one, so there lines are written."""
        from fenland.lab.sweep.progress import Lines, watch

        if self._live:
            yield Lines(pending, self._console)
            return
        self._live = True
        try:
            with watch(pending, self._console) as watcher:
                yield watcher
        finally:
            self._live = False

    def _identified(self, run: RunConfig) -> RunConfig:
        from fenland.lab import data

        return run if run.data_id else data.identify(run)


@functools.cache
def training_code() -> str:
    """Of one training run, whatever its settings."""
    from fenland.lab.training.here import train_here

    return code_of(train_here)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """A final state dict, on the CPU."""
    import torch

    stored: Mapping[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return stored


def _refuse(value: object) -> Any:
    raise TypeError(f"key of a piece: {value!r} is no plain value; give numbers, strings, lists and dictionaries")
