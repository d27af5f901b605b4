"""A few gloo processes that live as long as the tests: a task is a function that all of them run at once.

Starting a process costs seconds (torch is imported anew), so tests share them; one that does not answer in time is a
deadlock: it fails the test, and the next test gets fresh processes.
"""

from __future__ import annotations

import atexit
import os
import pickle
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Of itself, to no one's harm: torch 2.6 (the first also up to 2.9).
OLDER_TORCH_SAYS = ("TypedStorage is deprecated", "DTensor random operators may not have complete support on cpu")
# Torch 2.6 has no fully_shard for CPUs: it lacks two methods of a stream, and its backward refuses parameters that were
# resharded after the forward. With the methods, and with parameters kept whole in between, it runs.
CPU_SHARDS = hasattr(torch.cpu.Stream, "record_event")
START_S = 120.0  # until all processes answer; they share few cores with other tests
_pools: dict[int, Ranks] = {}


class Ranks:
    """`world` processes in one gloo group."""

    def __init__(self, world: int) -> None:
        context = mp.get_context("spawn")
        self.world = world
        self.folder = tempfile.TemporaryDirectory()
        meeting = os.path.join(self.folder.name, "meeting")
        pipes = [context.Pipe() for _ in range(world)]
        self.pipes = [ours for ours, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, world, meeting, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()
        self.answers(START_S)

    def run(self, task: Callable[..., Any], *args: Any, timeout: float) -> list[Any]:
        """What `task(rank, *args)` returned on each rank."""
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps((task, args)))
        return self.answers(timeout)

    def answers(self, timeout: float) -> list[Any]:
        end, found, failures = time.monotonic() + timeout, [], []
        for rank, pipe in enumerate(self.pipes):
            # A rank that failed leaves the others waiting in a collective: they get a moment only.
            left = min(end - time.monotonic(), 2.0) if failures else end - time.monotonic()
            try:
                if not pipe.poll(max(0.0, left)):
                    failures.append(f"rank {rank}: no answer within {timeout:g} s (a deadlock?)")
                    continue
                ok, value = pickle.loads(pipe.recv_bytes())
            except EOFError:
                ok, value = False, "the process died"
            (found if ok else failures).append(value if ok else f"rank {rank}: {value}")
        if failures:
            self.stop()
            raise AssertionError("\n".join(failures))
        return found

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self.folder.cleanup()
        _pools.pop(self.world, None)


def on_ranks(task: Callable[..., Any], *args: Any, world: int = 2, timeout: float = 60.0) -> list[Any]:
    """Run `task(rank, *args)` on `world` processes and return the answers by rank.

    `task` is a top-level function; warnings are errors in it.
    """
    if world not in _pools:
        _pools[world] = Ranks(world)
    return _pools[world].run(task, *args, timeout=timeout)


@atexit.register
def _stop_all() -> None:
    for pool in list(_pools.values()):
        pool.stop()


def _complete_streams() -> None:
    """What later torch has: two methods with nothing to do on a CPU."""
    torch.cpu.Stream.record_event = lambda self: torch.cpu.Event()
    torch.cpu.Stream.wait_event = lambda self, event: None


def _serve(rank: int, world: int, meeting: str, pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    if not CPU_SHARDS:
        _complete_streams()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    pipe.send_bytes(pickle.dumps((True, None)))
    while True:
        try:
            task, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(pickle.dumps(_answer(task, rank, args)))


def _answer(task: Callable[..., Any], rank: int, args: tuple) -> tuple[bool, Any]:
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for message in OLDER_TORCH_SAYS:
                warnings.filterwarnings("ignore", message)
            return True, task(rank, *args)
    except BaseException:
        return False, traceback.format_exc()
