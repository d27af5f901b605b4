"""One run of a sweep: claimed, trained, stored; whatever goes wrong with it becomes an outcome."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput, in_a_line
from fenland.lab.store import environment
from fenland.lab.store.runs import Store
from fenland.lab.training.metrics import EpochRecord

FAILED, BUSY = "failed", "busy"


@dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Args:
        run: the hash of its configuration.
        status: ``finished``, ``diverged`` or ``failed``; ``busy`` when another sweep was computing it.
        summary: the content of ``result.json``; empty when it failed.
        error: one line on why it failed.
        trace: the whole traceback of a failure.
        elsewhere: another sweep has computed it.
    """

    run: str
    status: str
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    trace: str = ""
    elsewhere: bool = False


def run_one(config: RunConfig, store: Store, on_epoch: Callable[[EpochRecord], None]) -> Outcome:
    """Claim, train and store, and turn any failure into an outcome."""
    from fenland.lab.training.trainer import train

    try:
        claim = store.claim(config.hash)
    except OSError as error:
        return failure(config, error)
    if claim is None:
        return Outcome(config.hash, BUSY)
    try:
        if store.has(config):
            return stored(config, store)
        result = train(config, on_epoch, checkpoint=claim.checkpoint)
        store.save(config, result, environment.describe(config.threads))
    # The border of a sweep: whatever one run raises (a bug, memory, a full disk) must not end the others.
    except Exception as error:
        return failure(config, error)
    finally:
        claim.release(done=store.has(config))
    return Outcome(config.hash, result.status, result.summary())


def stored(config: RunConfig, store: Store) -> Outcome:
    """The outcome of a run that somebody else has stored."""
    try:
        result = store.load(config.hash).result
    except BadInput as error:
        return failure(config, error)
    return Outcome(config.hash, str(result["status"]), result, elsewhere=True)


def failure(config: RunConfig, error: Exception) -> Outcome:
    """The outcome of a run that raised; to be called while the error is handled."""
    return Outcome(config.hash, FAILED, error=in_a_line(error)[:300], trace=traceback.format_exc())
