"""``fenland runs``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from fenland.lab.commands import output


@dataclass(frozen=True)
class Runs:
    """List the stored runs of an output directory.

    Example: fenland runs out/demo
    """

    out: Annotated[Positional[str], arg(metavar="DIR")]
    """The --out of the comparison."""
    json: bool = False
    """Print one JSON document instead of the table."""

    def run(self, arguments: list[str]) -> int:
        """Print them."""
        folder = output.existing_store(self.out)
        from fenland.lab import tables
        from fenland.lab.store import Store

        stored = Store(folder).runs()
        if self.json:
            rows = [{"run": run.folder.name, "config": run.config.as_dict(), "result": run.result} for run in stored]
            output.print_json(rows)
        else:
            output.console().print(tables.runs(stored))
        return output.OK
