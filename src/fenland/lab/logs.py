"""What the lab tells beside its results: logs to stderr, the course of a sweep to a file, what a command waits for."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
SILENCE = 0.5  # seconds that a command may be silent
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ROOT = logging.getLogger("fenland")


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # Python 3.10 gives it no type at run time


class _Stderr(_StreamHandler):
    """Writes to what ``sys.stderr`` is at the time, since a progress display puts itself there."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("it is always sys.stderr")


class _Quiet(logging.FileHandler):
    """A disk that is full must not end a sweep, nor fill the terminal with the logger's own trouble."""

    def _open(self) -> TextIOWrapper:
        """Append to a file of our own, never through somebody's link."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return TextIOWrapper(os.fdopen(os.open(self.baseFilename, flags, 0o666), "ab"), encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal that the command waits for this, unless it is there within half a second.

    The line is gone when the wait is over. Where stderr is no terminal nobody waits, and nothing is said.
    """
    if not sys.stderr.isatty():
        yield
        return
    timer = threading.Timer(SILENCE, lambda: print(f"waiting for {what}", end="", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def shown(verbosity: int) -> Iterator[None]:
    """Log to stderr: warnings at 0, the course of the work at 1, everything from 2 on."""
    handler = _Stderr()
    with _attached(handler, LEVELS[min(verbosity, len(LEVELS) - 1)]):
        yield


def loudness() -> int:
    """The level from which on stderr is told, for worker processes, which have no file to write to."""
    return min((each.level for each in _ROOT.handlers if isinstance(each, _Stderr)), default=logging.WARNING)


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Append the course of the work and every failure's traceback to a file, which appears with its first line."""
    with _attached(_Quiet(path, encoding="utf-8", delay=True), logging.INFO):
        yield


@contextmanager
def _attached(handler: logging.Handler, level: int) -> Iterator[None]:
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.setLevel(level)
    before = _ROOT.level, _ROOT.propagate
    _ROOT.addHandler(handler)
    _ROOT.setLevel(min(each.level for each in _ROOT.handlers))
    _ROOT.propagate = False
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        handler.close()
        _ROOT.setLevel(before[0])
        _ROOT.propagate = before[1]
