"""Pieces of a study, over worker processes where that saves time; each is stored as soon as it is there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fenland.lab.errors import BadInput
from fenland.lab.replicas.threads import one_thread
from fenland.lab.study.kept import keep, seconds_of
from fenland.lab.sweep import workers

if TYPE_CHECKING:
    from fenland.lab.study.parts import Piece

# A worker process takes about this long to import torch. What is to be won must be more.
START_SECONDS = 3.0
# Workers wait this long for the next pieces, of this study or of the next one, and then end.
_IDLE_SECONDS = 30


class Task(NamedTuple):
    """A piece and the file that it is missing from."""

    piece: Piece
    path: Path


def compute(tasks: Iterable[Task], count: int) -> Iterator[Task]:
    """Compute and store them; each when it is stored.

    The first is computed in this process. Worker processes take over when there are more than one left, and these, at
    the mean time of those before, would take so long that to share them saves more than starting processes costs.
    Wherever it is computed a piece has one thread of torch, so that it is the same to the last bit.

    Args:
        tasks: none twice.
        count: of worker processes; 1 for none.

    Raises:
        RuntimeError: a piece failed; no other was begun after that, and those in work were ended and stored.
        BadInput: as a piece raised it.
    """
    waiting, begun, done = deque(tasks), time.monotonic(), 0
    while waiting and not _worth(time.monotonic() - begun, done, len(waiting), count):
        task = waiting.popleft()
        work(task)
        done += 1
        yield task
    if waiting:
        yield from _processes(waiting, min(count, len(waiting)))


def _worth(seconds: float, done: int, left: int, count: int) -> bool:
    """Whether sharing the pieces that are left saves more than the start of processes."""
    if not done or left < 2 or count < 2:
        return False
    return seconds / done * left * (1 - 1 / min(count, left)) > START_SECONDS


def work(task: Task) -> None:
    """Compute one and store it, with the seconds of its process."""
    try:
        with one_thread():
            begun = time.process_time()
            table = task.piece.compute()
            seconds = time.process_time() - begun
    except BadInput:
        raise
    except Exception as error:
        raise RuntimeError(f"{type(error).__name__}: {error} ({task.piece})") from error
    keep(table, task.path, seconds)


def _processes(waiting: deque[Task], count: int) -> Iterator[Task]:
    """Compute and store them in worker processes, which end when this one does, however it ends."""
    flying: dict[Future[None], Task] = {}
    failure: Exception | None = None
    with workers.replaced_silently():
        try:
            while flying or (waiting and failure is None):
                if failure is None:
                    _launch(waiting, flying, count)
                wait(flying, return_when=FIRST_COMPLETED)
                for future in [future for future in flying if future.done()]:
                    task = flying.pop(future)
                    try:
                        _land(future, task, count)
                    except Exception as error:
                        failure = failure or error
                    else:
                        yield task
        except BaseException:  # Ctrl-C above all: nobody waits for what the workers still do
            _executor(count).shutdown(wait=True, kill_workers=True)
            raise
    if failure is not None:
        raise failure


def _executor(count: int) -> Any:
    """The pool, a new one where the last has broken; one that is idle is taken again."""
    from joblib.externals.loky import get_reusable_executor

    return get_reusable_executor(count, timeout=_IDLE_SECONDS, **workers.setup(threads=1))


def _launch(waiting: deque[Task], flying: dict[Future[None], Task], count: int) -> None:
    """Give each worker one: no more, so that those that are lost with a worker are known."""
    while waiting and len(flying) < count:
        try:
            future = _executor(count).submit(work, waiting[0])
        except BrokenProcessPool:  # it broke this very moment
            if flying:
                return
            continue
        flying[future] = waiting.popleft()


def _land(future: Future[None], task: Task, count: int) -> None:
    """See how it ended. What was lost with a worker is tried once more, and alone, to find the one that kills it."""
    try:
        future.result()
    except BrokenProcessPool:
        if seconds_of(task.path) is not None:
            return
        try:
            _executor(count).submit(work, task).result()
        except BrokenProcessPool as error:
            raise RuntimeError(f"its worker process died twice (out of memory?) ({task.piece})") from error
