"""Run many configurations, each once: what is stored is skipped, what fails is reported, the rest goes on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fenland.lab.config import RunConfig
from fenland.lab.store.runs import Store
from fenland.lab.sweep import runner, workers
from fenland.lab.sweep.runner import Outcome
from fenland.lab.sweep.watcher import Watcher

if TYPE_CHECKING:
    from fenland.lab.sweep.cluster import Cluster

_LOG = logging.getLogger(__name__)
# How often to look whether another sweep has ended a run, when all that is left is in its hands.
_WAIT_SECONDS = 1.0

Execute = Callable[[Sequence[RunConfig]], Iterator[Outcome]]


@dataclass
class SweepResult:
    """What a sweep did.

    Args:
        skipped: runs that were stored already, or that another sweep stored meanwhile.
        outcomes: the runs that ran now.
    """

    skipped: list[RunConfig] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """The runs that left no result."""
        return [outcome for outcome in self.outcomes if outcome.status == runner.FAILED]


def sweep(
    configs: Sequence[RunConfig],
    store: Store,
    watcher: Watcher,
    workers: int = 1,
    ray: Cluster | str | None = None,
) -> SweepResult:
    """Train the runs that are not stored yet.

    Each run is stored as soon as it ends. Runs that are under way keep a checkpoint in the store, from which they
    continue after a kill. Sweeps that share a store share the work: a run that another sweep computes is left to it,
    and taken over if that sweep gives up.

    Args:
        configs: the configurations of the runs; one that is listed twice runs once.
        store: where results go.
        watcher: an object that is told of every epoch and of the end of every run.
        workers: how many processes train; 1 trains in this process.
        ray: a Ray cluster that trains instead, or its address, or ``local`` for one on this machine; None for none.
    """
    store.clean()
    wanted = {config.hash: config for config in configs}
    result = SweepResult(skipped=[config for config in wanted.values() if store.has(config)])
    for config in result.skipped:
        store.forget(config.hash)
    left = {name: config for name, config in wanted.items() if not store.has(config)}
    for name, config in left.items():
        if store.damaged(name):
            watcher.note(f"{config.label} ({name}) is damaged: {store.damaged(name)}; it is run again")
    _LOG.info("%d runs in %s, %d stored before", len(wanted), store.root, len(result.skipped))
    if left:
        with _executor(store, watcher, min(workers, len(left)), ray) as execute:
            for outcome in _all(left, store, watcher, execute):
                _report(wanted[outcome.run], outcome)
                if outcome.elsewhere:
                    result.skipped.append(wanted[outcome.run])
                else:
                    result.outcomes.append(outcome)
                watcher.done(wanted[outcome.run], outcome)
    return result


def _all(left: dict[str, RunConfig], store: Store, watcher: Watcher, execute: Execute) -> Iterator[Outcome]:
    """Every run's end, those that other sweeps are computing last."""
    waiting = False
    while left:
        for config in [config for config in left.values() if store.has(config)]:
            del left[config.hash]
            yield runner.stored(config, store)
        free = [config for name, config in left.items() if not store.claimed(name)]
        for outcome in execute(free):
            if outcome.status != runner.BUSY:
                del left[outcome.run]
                yield outcome
        if left and not free:
            if not waiting:
                watcher.note(f"waiting for {len(left)} runs that another sweep is computing")
                waiting = True
            time.sleep(_WAIT_SECONDS)


@contextlib.contextmanager
def _executor(store: Store, watcher: Watcher, count: int, ray: Cluster | str | None) -> Iterator[Execute]:
    if ray is not None:
        from fenland.lab.sweep.cluster import Cluster

        cluster = Cluster(ray, slots=count) if isinstance(ray, str) else ray
        with cluster.connected() as connection:
            yield lambda configs: connection.run(configs, store, watcher)
    elif count <= 1:
        yield lambda configs: workers.loop(configs, store, watcher)
    else:
        yield lambda configs: workers.processes(configs, store, watcher, count)


def _report(config: RunConfig, outcome: Outcome) -> None:
    what = "stored by another sweep" if outcome.elsewhere else outcome.status
    if outcome.status == runner.FAILED:
        # Only the log has the traceback; people get the one line of it from the watcher.
        _LOG.info("%s (%s) failed: %s\n%s", config.label, outcome.run, outcome.error, outcome.trace)
    else:
        _LOG.info("%s (%s) %s", config.label, outcome.run, what)
