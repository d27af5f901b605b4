"""The subcommands of ``fenland``: one file each, a dataclass of options with a ``run`` method.

A command's file imports nothing heavy at its top, so that help is quick: what it needs, ``run`` imports. Its docstring
is its help: one line of what it does, how, and an example.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol


class Command(Protocol):
    """What a subcommand has to offer beside its options."""

    def run(self, arguments: list[str]) -> int:
        """Do it; the exit code. ``arguments`` is the command line as it was given."""


# Name on the command line -> "file:Class". It is imported when it is asked for.
COMMANDS: dict[str, str] = {
    "compare": "compare:Compare",
    "sweep": "sweep:Sweep",
    "recipe": "recipe:RecipeCommand",
    "data": "data:Data",
    "runs": "runs:Runs",
    "report": "report:Report",
    "study": "study:Study",
    "doctor": "doctor:Doctor",
    "bench": "bench:Bench",
    "explore": "explore:Explore",
    "variants": "variants:Variants",
    "completion": "completion:Completion",
}


def load(name: str) -> type[Command]:
    """The command of this name, its module imported now."""
    module, _, kind = COMMANDS[name].partition(":")
    found: type[Command] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
