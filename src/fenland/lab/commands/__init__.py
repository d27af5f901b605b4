"""The subcommands of ``fenland``: one file each, a dataclass of options with a ``run`` method."""

from __future__ import annotations

from typing import Protocol

from fenland.lab.commands.compare import Compare
from fenland.lab.commands.report import Report
from fenland.lab.commands.runs import Runs
from fenland.lab.commands.variants import Variants


class Command(Protocol):
    """What a subcommand has to offer beside its options."""

    def run(self, arguments: list[str]) -> int:
        """Do it; the exit code. ``arguments`` is the command line as it was given."""


COMMANDS: dict[str, type[Command]] = {"compare": Compare, "report": Report, "runs": Runs, "variants": Variants}
