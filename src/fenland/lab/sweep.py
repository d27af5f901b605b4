"""Run many configurations, each once: what is stored is skipped, what fails is reported, the rest goes on."""

from __future__ import annotations

import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fenland.lab import environment, events
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.metrics import EpochRecord
from fenland.lab.store import Store


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Args:
        run: the hash of its configuration.
        status: ``finished``, ``diverged`` or ``failed``.
        summary: the content of ``result.json``; empty when it failed.
        error: one line on why it failed.
        trace: the whole traceback of a failure.
    """

    run: str
    status: str
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    trace: str = ""


class Watcher(Protocol):
    """Is told what happens; see ``fenland.lab.progress``."""

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """A run finished an epoch."""

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """A run ended."""


@dataclass
class SweepResult:
    """What a sweep did.

    Args:
        skipped: runs that were stored already.
        outcomes: the runs that ran now.
    """

    skipped: list[RunConfig] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """The runs that left no result."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]


def sweep(configs: Sequence[RunConfig], store: Store, watcher: Watcher, workers: int = 1) -> SweepResult:
    """Run what is not stored yet; each run is stored as soon as it ends, so that an interrupt loses the live ones only.

    Args:
        configs: the runs; one that is listed twice runs once.
        store: where results go.
        watcher: told of every epoch and every end.
        workers: processes; 1 is a plain loop in this one.
    """
    store.clean()
    wanted = {config.hash: config for config in configs}
    result = SweepResult(skipped=[config for name, config in wanted.items() if store.finished(name)])
    pending = [config for name, config in wanted.items() if not store.finished(name)]
    execute = _loop if min(workers, len(pending)) <= 1 else _processes
    for outcome in execute(pending, store, watcher, min(workers, len(pending))):
        result.outcomes.append(outcome)
        watcher.done(wanted[outcome.run], outcome)
    return result


def run_one(config: RunConfig, store: Store, on_epoch: Callable[[EpochRecord], None]) -> Outcome:
    """Train, store, and turn any failure into an outcome."""
    from fenland.lab.trainer import train

    try:
        result = train(config, on_epoch)
        store.save(config, result, environment.describe(config.threads))
    # The border of a sweep: whatever one run raises (a bug, memory, a full disk) must not end the others.
    except Exception as error:
        line = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        return Outcome(config.hash, "failed", error=" ".join(line.split())[:300], trace=traceback.format_exc())
    return Outcome(config.hash, result.status, result.summary())


def _loop(configs: Sequence[RunConfig], store: Store, watcher: Watcher, workers: int) -> Iterator[Outcome]:
    for config in configs:

        def show(record: EpochRecord, config: RunConfig = config) -> None:
            watcher.epoch(config, record.as_dict())

        yield run_one(config, store, show)


def _processes(configs: Sequence[RunConfig], store: Store, watcher: Watcher, workers: int) -> Iterator[Outcome]:
    """Worker processes. When one dies (killed for memory, say) its pool is lost: what is left gets one new pool."""
    left = {config.hash: config for config in configs}

    def show(event: events.Event) -> None:
        watcher.epoch(by_name[event["run"]], event["record"])

    by_name = dict(left)
    with tempfile.TemporaryDirectory(prefix="fenland-") as folder:
        path = Path(folder) / "events"
        with events.Follower(path, show):
            for attempt in (1, 2):
                for outcome in _pool(list(left.values()), store, path, workers, last=attempt == 2):
                    del left[outcome.run]
                    yield outcome


def _pool(configs: list[RunConfig], store: Store, path: Path, workers: int, last: bool) -> Iterator[Outcome]:
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if not configs:
        return
    done = set()
    try:
        with joblib.parallel_config(backend="loky", inner_max_num_threads=configs[0].threads):
            jobs = (joblib.delayed(_work)(config, store, path) for config in configs)
            for outcome in joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(jobs):
                done.add(outcome.run)
                yield outcome
    except TerminatedWorkerError:
        for config in configs:
            # A run may have been stored just before the pool was lost.
            if config.hash not in done and store.finished(config.hash):
                stored = store.load(config.hash).result
                yield Outcome(config.hash, str(stored["status"]), stored)
            elif config.hash not in done and last:
                yield Outcome(config.hash, "failed", error="its worker process died twice (out of memory?)")
    finally:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)


def _work(config: RunConfig, store: Store, path: Path) -> Outcome:
    # Ctrl-C reaches the whole process group; the parent ends the workers, they need not complain as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return run_one(config, store, lambda record: events.append(path, {"run": config.hash, "record": record.as_dict()}))
