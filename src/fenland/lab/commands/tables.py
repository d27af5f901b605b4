"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from fenland.lab.commands import output
from fenland.lab.store.runs import StoredRun
from fenland.lab.sweep.progress import duration
from fenland.lab.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    import pandas

    from fenland.lab.study.sweep import Setting


def comparison(summary: pandas.DataFrame) -> Table:
    """The final table: one row per optimizer, means over the finished seeds with their 95 % intervals."""
    rows = summary.to_dict("records")
    seeds = max(int(row["n"]) + int(row["diverged"]) for row in rows)
    plural = "s" * (seeds > 1)
    title = f"Mean of {seeds} seed{plural} ± half of the 95 % interval; gap: test - train loss"
    # No padding and no edge: it fits into 80 columns.
    heads = ("test acc. %", "test loss", "gap", "time", "gradients")
    table = output.table(("optimizer",), heads, show_edge=False, title=title, title_style="dim", padding=0)
    table.columns[0].style, table.columns[0].min_width = "bold", 9
    digits = 3 if min(row["test_loss"] for row in rows) >= 0.1 else 4
    for row in rows:
        table.add_row(
            _title(str(row["optimizer"])) + _missing(row, seeds),
            _interval(row, "test_accuracy", 2, 100),
            _interval(row, "test_loss", digits),
            _interval(row, "loss_gap", digits),
            _time(row),
            "-" if math.isnan(row["gradient_evaluations"]) else f"{row['gradient_evaluations']:,.0f}",
        )
    return table


def settings(summary: pandas.DataFrame, fields: Sequence[str]) -> Table:
    """A sweep's table: one row a setting, means over the finished seeds with half of their 95 % intervals."""
    from fenland.lab.sweep.settings import SHOWN

    rows = summary.to_dict("records")
    names = list(fields) or ["optimizer"]
    title = "Mean over n seeds ± half of the 95 % interval; gap: test - train loss"
    right = ("n", *(shown for _, shown, *_ in SHOWN), "time")
    table = output.table(names, right, bold=len(names), show_edge=False, title=title, title_style="dim")
    for row in rows:
        words = ["-" if row[name] is None or row[name] != row[name] else _word(row[name]) for name in names]
        numbers = [_interval(row, name, digits, factor) for name, _, digits, factor in SHOWN]
        left = [f"{row[what]} {what}" for what in ("diverged", "missing") if row[what]]
        time = "-" if math.isnan(row["seconds"]) else duration(row["seconds"])
        table.add_row(*words, "\n".join([str(row["n"]), *left]), *numbers, time)
    return table


def verdicts(done: Sequence[Setting], fields: Sequence[str]) -> Table:
    """A study's sweep: one row a setting, how many of its verdicts hold, and what those measured that do not."""
    table = output.table(fields, ("holds", "does not", "not decided"), bold=len(fields), show_edge=False)
    table.add_column("what does not hold")
    for setting in done:
        found = setting.verdicts or ()
        counts = [sum(verdict.holds is each for verdict in found) for each in (True, False, None)]
        broken = [f"{verdict.claim} ({verdict.measured})" for verdict in found if verdict.holds is False]
        said = f"FAILED, {setting.error}" if setting.verdicts is None else "; ".join(broken) or "-"
        table.add_row(*(setting.values[name] for name in fields), *map(str, counts), escape(said))
    return table


def _word(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)


HEADS = ("data", "model", "optimizer", "rho", "lr", "seed", "epochs", "status")


def runs(stored: Sequence[StoredRun]) -> Table:
    """One row per stored run; what all have in common is said once, above, and takes no column."""
    rows = [_settings(run) for run in stored]
    common = {head: rows[0][head] for head in HEADS if len({row[head] for row in rows}) == 1 and head != "optimizer"}
    heads = ["run", *(head for head in HEADS if head not in common)]
    told = f"all: {', '.join(f'{head} {word}' for head, word in common.items())}" if common else None
    table = output.table(heads, ("test acc. %", "test loss", "time"), title=told)
    for run, row in zip(stored, rows, strict=True):
        table.add_row(
            run.folder.name,
            *(row[head] for head in heads[1:]),
            f"{100 * run.result['test_accuracy']:.2f}",
            f"{run.result['test_loss']:.4f}",
            duration(run.result["seconds"]),
        )
    # Its name is what --show takes: a narrow terminal may cut anything else.
    table.columns[0].min_width = max((len(run.folder.name) for run in stored), default=0)
    return table


def _settings(run: StoredRun) -> dict[str, str]:
    config = run.config
    name = " ".join((config.optimizer, *config.options))
    words = (config.data, config.model, name, config.rho, config.lr, config.seed, config.epochs, run.result["status"])
    return {head: "-" if word is None else str(word) for head, word in zip(HEADS, words, strict=True)}


def one_run(run: StoredRun) -> list[Table]:
    """All that is known of a run: configuration, result, environment, and its epochs."""
    parts = {"configuration": run.config.identity(), "result": run.result, "environment": run.environment}
    found = []
    for name, values in parts.items():
        table = Table(box=None, show_header=False, title=name, title_style="bold", title_justify="left", padding=(0, 2))
        for key, value in values.items():
            table.add_row(key, "-" if value is None or value == "" else _word(value))
        found.append(table)
    metrics = run.metrics()
    columns = [name for name in _EPOCH if name in metrics]
    heads = [name.replace("_", " ") for name in columns]
    table = output.table(numbers=heads, title=f"epochs of {run.folder.name}", title_style="bold")
    for row in metrics.to_dict("records"):
        table.add_row(*(_digits(row[name]) for name in columns))
    return [*found, table]


# Of an epoch's many numbers those that fit beside each other; --json and --export have all.
_EPOCH = (
    "epoch",
    "lr",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "grad_norm",
    "gamma",
    "sharpness",
)


def _digits(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _title(label: str) -> str:
    name, space, rest = label.partition(" ")
    return (OPTIMIZERS[name].title if name in OPTIMIZERS else name) + space + rest


def _missing(row: dict[Any, Any], seeds: int) -> str:
    """What a mean leaves out, on lines of their own."""
    failed = seeds - int(row["n"]) - int(row["diverged"])
    words = [f"{count} {what}" for count, what in ((int(row["diverged"]), "diverged"), (failed, "missing")) if count]
    return "".join(f"\n{word}" for word in words)


def _interval(row: dict[Any, Any], name: str, digits: int, factor: float = 1) -> str:
    mean, low, high = (factor * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(mean):
        return "-"
    half = "" if math.isnan(low) else f" ± {(high - low) / 2:.{digits}f}"
    return f"{mean:.{digits}f}{half}"


def _time(row: dict[Any, Any]) -> str:
    if math.isnan(row["seconds"]):
        return "-"
    relative = "" if math.isnan(row["relative_time"]) else f" {row['relative_time']:.2f}x"
    return duration(row["seconds"]) + relative
