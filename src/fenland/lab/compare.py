"""The main job: train several optimizers with several seeds, and say who wins and by how much."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.planning import Request, plan
from fenland.lab.progress import watch
from fenland.lab.store import Store
from fenland.lab.sweep import SweepResult, sweep

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Comparison:
    """What a comparison leaves.

    Args:
        out: the output directory.
        swept: which runs ran, were skipped, or failed.
        table: one row per optimizer (``fenland.lab.statistics.summary``); None when no run is stored.
        headline: who wins, by how much, and how sure that is.
        report: the report's page; None when no run is stored.
    """

    out: Path
    swept: SweepResult
    table: pandas.DataFrame | None = None
    headline: str = ""
    report: Path | None = None


def compare(
    request: Request, out: Path, console: Console, workers: int = 1, arguments: Sequence[str] = ()
) -> Comparison:
    """Run what is not stored yet, then write the report.

    Args:
        request: what to compare.
        out: output directory; nothing is written before every argument and the data have been checked.
        console: where progress goes.
        workers: processes.
        arguments: the command line, for the report's "how to run it again".

    Raises:
        BadInput: an argument is wrong.
    """
    runs = plan(request)
    check_out(out)
    _check_fit(runs)
    store = Store(out)
    _prepare(out, store)
    _write_request(out, runs, arguments)
    pending = [run for run in runs if not store.finished(run.hash)]
    if len(pending) < len(runs):
        console.print(f"{len(runs) - len(pending)} of {len(runs)} runs are stored in {out} already", soft_wrap=True)
    with watch(pending, console) as watcher:
        swept = sweep(runs, store, watcher, workers)
    if not any(store.finished(run.hash) for run in runs):
        return Comparison(out, swept)
    console.print("writing the report", style="dim")
    from fenland.lab.records import read_records
    from fenland.lab.report import write_report
    from fenland.lab.report.outcome import decide
    from fenland.lab.statistics import summary

    records = read_records(out)
    return Comparison(out, swept, summary(records), decide(records).headline, write_report(out))


def check_out(out: Path) -> None:
    """Refuse an output directory that cannot be one, without creating anything.

    Raises:
        BadInput: it is a file, or it cannot be written to.
    """
    for folder in (out / "runs", out, *out.absolute().parents):
        if folder.is_dir():
            if not os.access(folder, os.W_OK | os.X_OK):
                raise BadInput("out", out, f"{folder} is not writable; choose another directory")
            return
        if folder.exists():
            raise BadInput("out", out, f"{folder} is a file; choose another directory")


def _check_fit(runs: Sequence[RunConfig]) -> None:
    """Decode the data (the runs find it in the cache) and see that model, batch size and every optimizer take it."""
    from fenland.lab import data
    from fenland.lab.models import build_model
    from fenland.lab.optimizers import build_optimizer

    config = runs[0]
    images = data.load(config)
    if config.batch_size > len(images.train):
        raise BadInput("batch-size", config.batch_size, f"give at most {len(images.train)}, the size of the train set")
    model = build_model(config.model, images.shape, len(images.classes))
    for run in {run.optimizer: run for run in runs}.values():
        try:
            build_optimizer(run, model)
        except (ValueError, TypeError) as error:
            raise BadInput("optimizers", run.optimizer, f"does not fit the model {config.model}: {error}") from error


def _prepare(out: Path, store: Store) -> None:
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput("out", out, f"cannot be created ({error.strerror}); choose another directory") from None


def _write_request(out: Path, runs: Sequence[RunConfig], arguments: Sequence[str]) -> None:
    """``compare.json``: which of the stored runs belong to this comparison, and the command that made it."""
    optimizers = list(dict.fromkeys(run.optimizer for run in runs))
    content = {
        "command": shlex.join(["fenland", *arguments]) if arguments else None,
        "optimizers": optimizers,
        "baseline": "sgd" if "sgd" in optimizers else optimizers[0],
        "runs": [run.hash for run in runs],
    }
    temporary = out / f".compare-{os.getpid()}.json"
    try:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(out / "compare.json")
    finally:
        temporary.unlink(missing_ok=True)
