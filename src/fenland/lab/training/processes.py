"""Several processes for one run: those that torchrun started, or new ones of our own.

Under torchrun every process runs the same command. The first one does all of it: it parses, plans, stores and prints;
the others wait in ``together`` for the runs that it trains, and take their part in each.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.training.metrics import EpochRecord
from fenland.lab.training.result import RunResult

OnEpoch = Callable[[EpochRecord], None]
Train = Callable[[RunConfig, OnEpoch | None, Path | None], RunResult]

# The others wait while the first one plans, evaluates or writes a report: that is no deadlock.
_PATIENCE = datetime.timedelta(days=1)
# Set to the number of the process that leads the others.
_LEADER = "FENLAND_LEADER"


def started_by_torchrun() -> int:
    """How many processes torchrun started; 0 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def are_needed(config: RunConfig) -> bool:
    """Whether this run is spread over processes."""
    started = started_by_torchrun()
    if started > 1 and started != config.devices:
        cure = f"torchrun started {started} processes; give devices={started} and strategy=ddp or fsdp"
        raise BadInput("devices", config.devices, cure)
    return config.devices > 1


def spread(config: RunConfig, on_epoch: OnEpoch | None, checkpoint: Path | None) -> RunResult:
    """Train with ``config.devices`` processes.

    Args:
        config: the run.
        on_epoch: called in this process.
        checkpoint: as for ``fenland.lab.training.trainer.train``.
    """
    from fenland.lab.training.here import train_here

    if started_by_torchrun() > 1:
        return _lead(train_here, config, on_epoch, checkpoint)
    return _start(train_here, config, on_epoch, checkpoint)


# Under torchrun.


def together(work: Callable[[], int]) -> int:
    """Do a command's work in the first process of torchrun, with the help of the others; the exit code."""
    import torch.distributed as dist

    _join()
    if dist.get_rank():
        _follow()
        return 0
    os.environ[_LEADER] = str(os.getpid())
    code = work()
    # An exception does not come here: it ends this process, and torchrun ends the others.
    dist.broadcast_object_list([None], 0)
    _leave()
    return code


def _follow() -> None:
    import torch.distributed as dist

    from fenland.lab.training.here import train_here

    while True:
        said: list[Any] = [None]
        dist.broadcast_object_list(said, 0)
        if said[0] is None:
            _leave()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # in the ordinary way gloo now and then aborts a process at its end; nothing is left to do
        with contextlib.suppress(BadInput):  # the first process found it too, and reports it
            train_here(said[0][0], None, said[0][1])


def _leave() -> None:
    """Leave the group together, with nothing alive that still holds it."""
    import torch.distributed as dist

    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def _lead(train: Train, config: RunConfig, on_epoch: OnEpoch | None, checkpoint: Path | None) -> RunResult:
    import torch.distributed as dist

    leader = os.environ.get(_LEADER)
    if leader is None:  # a script of the user's: all of its processes call the same
        _join()
        return train(config, on_epoch, checkpoint)
    if leader != str(os.getpid()):
        raise BadInput("workers", "more than 1", "the processes of torchrun share each run; leave it out")
    dist.broadcast_object_list([(config, checkpoint)], 0)
    try:
        return train(config, on_epoch, checkpoint)
    except BadInput:  # found by all processes alike, before the first step
        raise
    except Exception as error:
        # The others may wait in the middle of a step: nothing can be trained with them any more.
        reason = f"fenland: {config.label} failed ({type(error).__name__}: {' '.join(str(error).split())})"
        print(f"{reason}; the processes are out of step: start the same command again", file=sys.stderr)
        raise SystemExit(1) from error


def _join() -> None:
    """The group of all processes: gloo for what is said on the CPU, nccl for tensors on GPUs."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    gpus = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_PATIENCE)


# Processes of our own.


def _start(train: Train, config: RunConfig, on_epoch: OnEpoch | None, checkpoint: Path | None) -> RunResult:
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(config.devices)]
    workers = [
        context.Process(target=_work, args=(train, config, checkpoint, rank, port, end), daemon=False)
        for rank, (_, end) in enumerate(pipes)
    ]
    try:
        for worker, (_, end) in zip(workers, pipes, strict=True):
            worker.start()
            end.close()  # so that a worker's death is the end of its pipe
        return _listen([ours for ours, _ in pipes], config, on_epoch)
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()
        for ours, _ in pipes:
            ours.close()


def _listen(pipes: list[Connection], config: RunConfig, on_epoch: OnEpoch | None) -> RunResult:
    """Pass the first process's records on until it has a result; the first failure of any of them ends it."""
    left = dict(enumerate(pipes))
    result: RunResult | None = None
    while left:
        for pipe in multiprocessing.connection.wait(list(left.values())):
            rank = next(number for number, each in left.items() if each is pipe)
            try:
                kind, value = pickle.loads(left[rank].recv_bytes())
            except EOFError:
                raise RuntimeError(f"process {rank} of {config.devices} of the run died (out of memory?)") from None
            if kind == "error":
                raise value
            if kind == "epoch" and on_epoch is not None:
                on_epoch(value)
            if kind == "done":
                result = value if rank == 0 else result
                del left[rank]
    assert result is not None
    return result


def _work(train: Train, config: RunConfig, checkpoint: Path | None, rank: int, port: int, pipe: Connection) -> None:
    """One process: the environment that torchrun would give it, its part of the run, and what came of it."""
    import torch.distributed as dist

    threading.Thread(target=_die_with_parent, daemon=True).start()
    size = str(config.devices)
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    meeting = {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(place | meeting | {"TORCHELASTIC_RUN_ID": "fenland"})
    try:
        _join()
        result = train(config, lambda record: pipe.send_bytes(pickle.dumps(("epoch", record))), checkpoint)
        message: tuple[str, Any] = ("done", result if rank == 0 else None)
    except Exception as error:  # the border of the process: the parent raises it
        message = ("error", error)
    pipe.send_bytes(_pickled(message))
    if message[0] == "done":
        dist.destroy_process_group()
    # Not through the interpreter's end: a process whose peers are gone would wait for them there.
    pipe.close()
    os._exit(0)


def _pickled(message: tuple[str, Any]) -> bytes:
    try:
        return pickle.dumps(message)
    except Exception:  # an error that holds what cannot travel
        return pickle.dumps((message[0], RuntimeError(f"{type(message[1]).__name__}: {message[1]}")))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
