"""The page: everything that its template shows, gathered from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.style import dash_array, title_of
from fenland.lab.report import setup, table
from fenland.lab.report.charts import document
from fenland.lab.report.outcome import decide
from fenland.lab.report.packed import library, packed_json
from fenland.lab.report.templating import fill
from fenland.lab.store.records import Records
from fenland.lab.store.statistics import summary

# Measured quantities that the figures and the first lines name.
TERMS = (
    ("w, e, w+e", "The weights, the perturbation of size rho, and the ascent point, where h is measured."),
    ("Gamma", "‖g‖ / ‖h‖: the gradient norm at w over that at the ascent point; SSAM multiplies h by it. No unit."),
    ("Sharpness", "L(w+e) − L(w) on the training batch, mean over an epoch's steps: how far the loss rises. In units "
     "of the loss; it grows with the length of e, so it compares optimizers only where that is the same."),
    ("95 % interval", "Mean ± t · s / √n over n seeds (Student's t: 12.7 for 2 seeds, 4.3 for 3, 2.8 for 5). It "
     "covers initial weights and order of the data, not another choice of test set. Bands in the figures are the "
     "same, epoch by epoch; a band wider than its axis is cut off there."),
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """What the page shows of two sources beside the usual."""

    names: tuple[str, str]  # of the two
    heads: tuple[str, ...]  # of the table of differences
    # a label, and for each measured quantity the second less the first, with its interval
    rows: tuple[tuple[Any, ...], ...]
    # what differs in the configuration or the environment: its name, and the value in each
    differing: tuple[tuple[str, str, str], ...]


def render(records: Records, figures: Sequence[tuple[Drawn, str]], beside: Beside | None = None) -> str:
    """The whole page as text; ``figures`` come with their SVG elements, ``beside`` where it is of two sources."""
    return fill("page.html.j2", _context(records, figures, beside))


def _context(records: Records, figures: Sequence[tuple[Drawn, str]], beside: Beside | None) -> dict[str, Any]:
    table_columns = table.columns(records.baseline, alone=len(records.labels) == 1)
    table_rows = [{str(k): v for k, v in row.items()} for row in summary(records).to_dict("records")]
    command, given = setup.command(records)
    return {
        "beside": beside,
        "title": _title(records) if beside is None else f"{beside.names[0]} beside {beside.names[1]}",
        "outcome": decide(records),
        "caveats": _caveats(records),
        "columns": table_columns,
        "rows": table.rows(table_rows, table_columns),
        "dashes": [dash_array(index) for index in range(len(table_rows))],
        "figures": [(drawn, Markup(svg)) for drawn, svg in figures],  # our own SVG; its words were escaped on the way
        "configuration": setup.configuration(records),
        "environment": setup.environment(records),
        "command": command,
        "command_given": given,
        "terms": TERMS,
        "runs": len(records.results),
        "charts": Markup(packed_json(document(records))),
        "library": Markup(library()),
    }


def _title(records: Records) -> str:
    names = [title_of(label) for label in records.labels]
    if len(names) > 5:  # a sweep: name the optimizers and count their variants
        kinds = Counter(label.split(" ", 1)[0] for label in records.labels)
        names = [title_of(kind) + (f" ({count} variants)" if count > 1 else "") for kind, count in kinds.items()]
    what = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    data = " and ".join(dict.fromkeys(str(name) for name in records.results.get("data", ())))
    return f"{what} on {data}" if data else what


def _caveats(records: Records) -> list[str]:
    """What a reader must know before the numbers: few seeds, runs that are missing, notes of whoever ran it."""
    caveats = [str(note) for note in records.comparison.get("notes", ())]
    planned = len(records.comparison.get("runs", ()))
    if planned > len(records.results):
        caveats.append(f"Unfinished: {len(records.results)} of {planned} runs are stored; run the command again.")
    seeds = int(records.results.groupby("label")["seed"].nunique().min())
    if seeds < 3:
        caveats.append(
            f"Only {seeds} seed{'' if seeds == 1 else 's'}: take five or more before you believe a difference."
        )
    return caveats
