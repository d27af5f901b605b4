"""This process's part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fenland.lab.config import RunConfig
from fenland.lab.training.engine import Engine
from fenland.lab.training.loop import Loop, OnEpoch
from fenland.lab.training.result import RunResult
from fenland.lab.training.world import World, here, make_fabric


@contextmanager
def exactly(threads: int) -> Iterator[None]:
    """So many threads, kernels that repeat themselves on a GPU too, and the caller's random state left as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            yield
    finally:
        torch.set_num_threads(before)


def train_here(config: RunConfig, on_epoch: OnEpoch | None, checkpoint: Path | None) -> RunResult:
    """This process's part of a run, which is all of it where it is alone."""
    with exactly(config.threads):
        torch.manual_seed(config.seed)
        world = here() if config.devices > 1 else World()
        engine = Engine(config, make_fabric(config, world), world)
        if world.rank:
            # Replicas have equal weights by now; dropout and the like should differ.
            torch.manual_seed(config.seed + 1_000_003 * world.rank)
        return Loop(engine, on_epoch, checkpoint).run()
