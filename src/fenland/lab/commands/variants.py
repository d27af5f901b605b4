"""``fenland variants``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from tyro.conf import arg

from fenland.lab.commands import output


@dataclass(frozen=True)
class Variants:
    """List every method: equation, source, cost and defaults.

    Example: fenland variants --name GSAM
    """

    name: Annotated[str | None, arg(metavar="NAME")] = None
    """Show one method with all that is known of it."""
    json: bool = False
    """Print one JSON document instead of the table."""
    markdown: bool = False
    """Print docs/methods.md."""

    def run(self, arguments: list[str]) -> int:
        """Print them."""
        if self.markdown:
            from fenland.lab.report.variants import page

            print(page(), end="")
            return output.OK
        chosen = _chosen(self.name)
        if self.json:
            output.print_json([_plain(row) for row in chosen])
        elif self.name is not None:
            print(f"{chosen[0].name}: {chosen[0].text}")
        else:
            output.console().print(_table())
        return output.OK


def _chosen(name: str | None) -> list[Any]:
    from fenland.lab.errors import BadInput, one_of
    from fenland.presets import PRESETS

    rows = [row for row in PRESETS.values() if name is None or row.name.lower() == name.lower()]
    if not rows:
        raise BadInput("name", str(name), one_of(PRESETS))
    return rows


def _plain(row: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "build"}


def _table() -> Any:
    from rich import box
    from rich.table import Table

    from fenland.presets import PRESETS

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", style="bold", no_wrap=True)
    for name in ("equation", "gradients", "kept", "source"):
        table.add_column(name)
    for row in PRESETS.values():
        table.add_row(row.name, row.equation, row.evaluations, str(row.kept), row.source)
    return table
