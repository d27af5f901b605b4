"""Events from worker processes to the one that shows them: a file to append to, read as it grows.

Appends of one short line are atomic, no server process is needed, and the readers poll: nothing can block a worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Event = dict[str, Any]

# Five looks a second keep a progress bar alive and cost nothing.
_POLL_SECONDS = 0.2


def append(path: Path, event: Event) -> None:
    """Add one event in a single write; on a full disk it is lost, for a display is not worth a run."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(event) + "\n").encode())
        finally:
            os.close(descriptor)


class Follower:
    """Calls back for each event of a file, in order: from a thread while its block runs, for the rest at its end."""

    def __init__(self, path: Path, on_event: Callable[[Event], None]) -> None:
        self._path = path
        self._on_event = on_event
        self._offset = 0
        self._reading = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.read()

    def _follow(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            self.read()

    def read(self) -> None:
        """Pass on what has come since the last look."""
        with self._reading:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    grown = file.read()
            except FileNotFoundError:
                return
            complete = grown[: grown.rfind(b"\n") + 1]
            self._offset += len(complete)
            for line in complete.splitlines():
                # A line that a full disk has cut short runs into the next one.
                with contextlib.suppress(json.JSONDecodeError):
                    self._on_event(json.loads(line))
