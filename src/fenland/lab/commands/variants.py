"""``fenland variants``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from fenland.presets import Preset


@dataclass(frozen=True)
class Variants:
    """List every method: equation, source, cost and defaults.

    Example: fenland variants --name GSAM
    """

    name: Annotated[str | None, option(metavar="NAME")] = None
    """Show one method with all that is known of it."""
    json: bool = False
    """Print one JSON document instead of the table."""
    markdown: bool = False
    """Print docs/methods.md."""

    def run(self, arguments: list[str]) -> int:
        """Print them."""
        if self.markdown:
            shared.alone(self, "markdown")
        with logs.waiting("torch"):
            from fenland.presets import PRESETS
        if self.markdown:
            from fenland.lab.report.variants import page

            print(page(), end="")
            return output.OK
        chosen = [row for row in PRESETS.values() if self.name is None or row.name.lower() == self.name.lower()]
        if not chosen:
            raise BadInput("name", str(self.name), one_of(PRESETS, str(self.name)))
        if self.json:
            output.print_json([_plain(row) for row in chosen])
        elif self.name is not None:
            print(f"{chosen[0].name}: {chosen[0].text}")
        else:
            output.console().print(_table(chosen))
        return output.OK


def _plain(row: Preset) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "build"}


def _table(rows: Sequence[Preset]) -> Any:
    table = output.table(("method", "equation", "gradients", "kept", "source"), bold=1)
    for row in rows:
        table.add_row(row.name, row.equation, row.evaluations, str(row.kept), row.source)
    return table
