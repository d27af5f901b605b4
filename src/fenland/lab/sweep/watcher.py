"""Who is told what happens in a sweep."""

from __future__ import annotations

from typing import Any, Protocol

from fenland.lab.config import RunConfig
from fenland.lab.sweep.runner import Outcome


class Watcher(Protocol):
    """Is told what happens; see ``fenland.lab.sweep.progress``."""

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """A run finished an epoch."""

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """A run ended."""

    def note(self, text: str) -> None:
        """Something that people should know, about no run in particular."""
