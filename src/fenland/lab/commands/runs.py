"""``fenland runs``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    from fenland.lab.store.runs import Store, StoredRun


@dataclass(frozen=True)
class Runs:
    """List, filter, export and show the stored runs of an output directory.

    Fields are those of the configuration and the result, as in the header of an export.

    Example: fenland runs out/demo --where optimizer=sam,ssam 'test_accuracy>0.97' --sort test_loss
    --export best.csv
    """

    out: Annotated[Positional[str], option(metavar="DIR")]
    """The --out of the comparison, sweep or study."""
    where: Annotated[tuple[str, ...], option(metavar="CONDITION ...")] = ()
    """Only runs with field=value; also a,b and 0..9 for several values, !=, and < <= > >= for numbers. All must
    hold."""
    sort: Annotated[str, option(metavar="FIELD")] = ""
    """Sort by this field."""
    descending: bool = False
    """The largest first."""
    show: Annotated[str, option(metavar="HASH")] = ""
    """Show all of one run: the first letters of its hash are enough."""
    epochs: bool = False
    """One row an epoch instead of one a run, with --export or --json."""
    export: Annotated[str, option(metavar="FILE")] = ""
    """Write the rows to FILE.parquet or FILE.csv."""
    check: bool = False
    """Compare every file of every run with its checksum; exit code 1 where one is damaged."""
    json: bool = False
    """Print one JSON document instead of the table."""

    def run(self, arguments: list[str]) -> int:
        """Print them."""
        self._check_options()
        with logs.waiting("torch"):
            from fenland.lab.commands import tables
            from fenland.lab.store import listing
            from fenland.lab.store.runs import Store

        store = Store(output.existing_store(self.out))
        if self.check:
            return self._check(store)
        if self.show:
            return self._show(listing.find(store, self.show))
        stored = {run.folder.name: run for run in store.runs()}
        rows = listing.choose(listing.rows(list(stored.values())), self.where)
        if not rows and stored:
            reason = listing.why_none(listing.rows(list(stored.values())), self.where)
            print(f"fenland: {reason or 'no run meets all conditions at once'}", file=sys.stderr)
        if self.sort:
            rows = listing.order(rows, self.sort, self.descending)
        chosen = [stored[row["run"]] for row in rows]
        if self.export:
            table = listing.epochs(chosen) if self.epochs else listing.frame(rows)
            listing.export(table, Path(self.export))
        if self.json:
            output.print_json(listing.epochs(chosen).to_dict("records") if self.epochs else _documents(chosen))
        elif self.export:
            print(f"{len(rows)} of {len(stored)} runs in {self.export}")
        else:
            output.console().print(tables.runs(chosen))
            if len(chosen) < len(stored):
                print(f"{len(chosen)} of {len(stored)} runs")
        return output.OK

    def _check_options(self) -> None:
        """Refuse an option that another one leaves without a meaning."""
        for switch in ("check", "show"):
            if getattr(self, switch):
                shared.alone(self, switch, "json")
        if self.descending and not self.sort:
            raise BadInput("descending", "on", "is the order of --sort FIELD; give that too")
        if self.epochs and not (self.export or self.json):
            raise BadInput("epochs", "on", "is for --export or --json; give one of them, or --show HASH alone")

    def _check(self, store: Store) -> int:
        flaws = {name: store.flaw(name) for name in store.names()}
        if self.json:
            output.print_json([{"run": name, "damaged": flaw or None} for name, flaw in flaws.items()])
        else:
            for name, flaw in flaws.items():
                if flaw:
                    print(f"{name} is damaged: {flaw}")
            print(f"{sum(not flaw for flaw in flaws.values())} of {len(flaws)} runs are whole")
        return output.FAILED if any(flaws.values()) else output.OK

    def _show(self, run: StoredRun) -> int:
        from fenland.lab.commands import tables

        if self.json:
            (document,) = _documents([run])
            metrics = run.metrics().to_dict("records")
            output.print_json({**document, "environment": run.environment, "epochs": metrics})
        else:
            for table in tables.one_run(run):
                output.console().print(table)
        return output.OK


def _documents(runs: list[StoredRun]) -> list[dict[str, object]]:
    return [{"run": run.folder.name, "config": run.config.as_dict(), "result": run.result} for run in runs]
