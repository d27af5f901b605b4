"""``fenland report``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fenland.lab.commands import output


@dataclass(frozen=True)
class Report:
    """Write the report of a comparison again, from its stored runs.

    Example: fenland report out/demo
    """

    out: Annotated[Positional[str], arg(metavar="DIR")]
    """The --out of the comparison."""

    def run(self, arguments: list[str]) -> int:
        """Write it and print its path."""
        folder = output.existing_store(self.out)
        from fenland.lab.report import write_report

        print(write_report(folder))
        return output.OK
