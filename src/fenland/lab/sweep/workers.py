"""Runs in this process, one after the other, or in worker processes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab import logs
from fenland.lab.config import RunConfig
from fenland.lab.store.runs import Store
from fenland.lab.sweep import events, runner
from fenland.lab.sweep.runner import Outcome, run_one
from fenland.lab.training.metrics import EpochRecord

if TYPE_CHECKING:
    from fenland.lab.sweep.watcher import Watcher

_LOG = logging.getLogger(__name__)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_LOOK_SECONDS = 0.5


def loop(configs: Sequence[RunConfig], store: Store, watcher: Watcher) -> Iterator[Outcome]:
    """Run them here."""
    for config in configs:

        def show(record: EpochRecord, config: RunConfig = config) -> None:
            watcher.epoch(config, record.as_dict())

        yield run_one(config, store, show)


def processes(configs: Sequence[RunConfig], store: Store, watcher: Watcher, workers: int) -> Iterator[Outcome]:
    """Run them in worker processes, which end when this one does, however it ends.

    When a worker dies (killed for memory, say) its pool is lost. Each run that had begun is then tried once more and
    alone, so that the one that kills its worker is found and fails, and the others go on.
    """
    left = {config.hash: config for config in configs}
    begun: set[str] = set()

    def show(event: events.Event) -> None:
        if "record" in event:
            watcher.epoch(known[event["run"]], event["record"])
        begun.add(event["run"])

    known = dict(left)
    path = store.temporary(f"events_{uuid.uuid4().hex}")
    try:
        with events.Follower(path, show) as follower:
            while left:
                begun.clear()
                for outcome in _pool(list(left.values()), store, path, workers):
                    del left[outcome.run]
                    yield outcome
                follower.read()
                suspects = [left[name] for name in begun & left.keys()] or list(left.values())
                for config in suspects:
                    del left[config.hash]
                    yield _alone(config, store, path)
    finally:
        path.unlink(missing_ok=True)


def _alone(config: RunConfig, store: Store, path: Path) -> Outcome:
    """One run in a pool of its own, after a pool was lost with it."""
    if store.has(config):  # just before the pool was lost
        result = store.load(config.hash).result
        return Outcome(config.hash, str(result["status"]), result)
    _LOG.warning("a worker process died; %s (%s) is tried once more", config.label, config.hash)
    outcomes = list(_pool([config], store, path, 1))
    return outcomes[0] if outcomes else Outcome(config.hash, runner.FAILED, error=_DIED)


_DIED = "its worker process died twice (out of memory?)"


def _pool(configs: list[RunConfig], store: Store, path: Path, workers: int) -> Iterator[Outcome]:
    """The outcomes of one pool; fewer than there are runs when a worker of it died.

    No more runs are handed in than there are workers: loky's own thread ends with a KeyError where an interrupt finds
    some waiting.
    """
    from joblib.externals.loky import ProcessPoolExecutor

    waiting, flying = deque(configs), set[Any]()
    with replaced_silently():
        executor = ProcessPoolExecutor(min(workers, len(configs)), **setup(configs[0].threads))
        try:
            while waiting or flying:
                while waiting and len(flying) < workers:
                    flying.add(executor.submit(_work, waiting.popleft(), store, path))
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            return
        finally:
            executor.shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def replaced_silently() -> Iterator[None]:
    """A worker that has grown is replaced between two pieces of work, which is no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs", category=UserWarning)
        yield


def setup(threads: int) -> dict[str, Any]:
    """What an executor is to be told: the threads of its processes, and that they end when this one does."""
    env = dict.fromkeys(_THREADS, str(threads))
    return {"env": env, "initializer": _begin, "initargs": (os.getpid(), logs.loudness())}


def _begin(parent: int, level: int) -> None:
    """Set up a worker process."""
    # Ctrl-C reaches the whole process group; the parent ends the workers, they need not complain as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("fenland").setLevel(level)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed sweep leaves nothing behind that computes or holds a run."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _work(config: RunConfig, store: Store, path: Path) -> Outcome:
    events.append(path, {"run": config.hash})
    return run_one(config, store, lambda record: events.append(path, {"run": config.hash, "record": record.as_dict()}))
