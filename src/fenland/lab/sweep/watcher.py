"""Who is told what happens in a sweep."""

from __future__ import annotations

from typing import Any, Protocol

from fenland.lab.config import RunConfig
from fenland.lab.sweep.runner import Outcome


class Watcher(Protocol):
    """An object that `sweep` tells what happens; write a class with these methods to follow a sweep."""

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """A run finished an epoch."""

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """A run ended."""

    def note(self, text: str) -> None:
        """There is something that people should know, about no run in particular."""
