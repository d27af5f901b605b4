"""The main job: train several optimizers with several seeds, and say who wins and by how much."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fenland.lab import logs
from fenland.lab.config import RunConfig
from fenland.lab.config.run_config import BASES
from fenland.lab.errors import BadInput
from fenland.lab.store.files import write_json
from fenland.lab.store.runs import Store
from fenland.lab.sweep.planning import Request, plan
from fenland.lab.sweep.progress import watch
from fenland.lab.sweep.sweep import SweepResult, sweep
from fenland.lab.sweep.trackers import check_trackers, tracked

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from fenland.lab.sweep.cluster import Cluster
    from fenland.lab.training.task import Examples


@dataclass(frozen=True)
class Comparison:
    """What a comparison leaves.

    Args:
        out: the output directory.
        swept: which runs ran, were skipped, or failed.
        table: one row per optimizer (``fenland.lab.store.statistics.summary``); None when no run is stored.
        headline: who wins, by how much, and how sure that is.
        report: the report's page; None when no run is stored, or when it could not be written.
        trouble: why the report could not be written.
    """

    out: Path
    swept: SweepResult
    table: pandas.DataFrame | None = None
    headline: str = ""
    report: Path | None = None
    trouble: str = ""


def compare(
    request: Request,
    out: Path,
    console: Console,
    workers: int = 1,
    arguments: Sequence[str] = (),
    ray: Cluster | None = None,
    trackers: Sequence[str] = (),
) -> Comparison:
    """Run what is not stored yet, then write the report.

    Args:
        request: what to compare.
        out: output directory; nothing is written before every argument and the data have been checked.
        console: where progress goes.
        workers: processes.
        arguments: the command line, for the report's "how to run it again".
        ray: a Ray cluster to run on instead; with GPUs for each run, these are what it runs on.
        trackers: names of ``fenland.lab.sweep.trackers.TRACKERS`` that are told of every run.

    Raises:
        BadInput: an argument is wrong.
    """
    with logs.waiting("the data"):
        runs = plan(replace(request, device="cuda") if ray is not None and ray.gpus else request)
    return carry_out(runs, out, console, workers, arguments, ray, trackers=trackers)


def carry_out(
    runs: Sequence[RunConfig],
    out: Path,
    console: Console,
    workers: int = 1,
    arguments: Sequence[str] = (),
    ray: Cluster | None = None,
    fields: Sequence[str] | None = None,
    trackers: Sequence[str] = (),
) -> Comparison:
    """What ``compare`` does with its runs; ``fields`` names those that tell settings apart, None for any that do."""
    check_trackers(trackers)
    check_out(out)
    with logs.waiting("the data"):
        _check_fit(runs)
    store = Store(out)
    _prepare(out, store)
    _write_request(out, runs, arguments, fields)
    pending = [run for run in runs if not store.has(run)]
    if len(pending) < len(runs):
        console.print(f"{len(runs) - len(pending)} of {len(runs)} runs are stored in {out} already", soft_wrap=True)
    with (
        logs.kept(out / "log.txt"),
        watch(pending, console) as shown,
        tracked(shown, trackers, out) as watcher,
    ):
        swept = sweep(runs, store, watcher, workers, ray)
    if not any(store.finished(run.hash) for run in runs):
        return Comparison(out, swept)
    console.print("writing the report", style="dim")
    # Another sweep on this store may have written its own request meanwhile.
    _write_request(out, runs, arguments, fields)
    return _conclude(out, swept, runs)


def _conclude(out: Path, swept: SweepResult, runs: Sequence[RunConfig]) -> Comparison:
    from fenland.lab.report import decide, write_report
    from fenland.lab.store.records import read_records
    from fenland.lab.store.statistics import summary

    records = read_records(out, runs=[run.hash for run in runs])
    done = Comparison(out, swept, summary(records), decide(records).headline)
    try:
        return replace(done, report=write_report(out))
    except OSError as error:
        return replace(done, trouble=str(error))


def check_out(out: Path) -> None:
    """Refuse an output directory that cannot be one, without creating anything."""
    for folder in (out / "runs", out, *out.absolute().parents):
        if folder.is_dir():
            if not os.access(folder, os.W_OK | os.X_OK):
                raise BadInput("out", out, f"{folder} is not writable; choose another directory")
            return
        if folder.exists():
            raise BadInput("out", out, f"{folder} is a file; choose another directory")


def _check_fit(runs: Sequence[RunConfig]) -> None:
    """Decode the data (the runs find it in the cache) and see that model, batch size and every optimizer take it."""
    from fenland.lab.training.task import load_examples, make_model

    data = ("data", "data_dir", "test_split", "validate", "limit", "label_noise", "replace")
    for share in _by(runs, *data, "model", "model_dir", "max_tokens").values():
        examples = load_examples(share[0])
        for run in share:
            _check_batches(run, examples)
        for group in _by(share, "lora").values():
            model = make_model(group[0], examples)
            for run, *_ in _by(group, "optimizer", "base", "options").values():
                _check_optimizer(run, model)


def _check_batches(run: RunConfig, examples: Examples) -> None:
    """See that the train set has what is asked of it, and that its images take the augmentation."""
    from fenland.lab.data import Images
    from fenland.lab.data.augment import Augmentation

    most = len(examples.train)
    if run.limit is not None and run.limit > most:  # a page would tell of examples that there are not
        raise BadInput("limit", run.limit, f"give at most {most}, the size of the train set, or all")
    if run.batch_size > most:
        raise BadInput("batch-size", run.batch_size, f"give at most {most}, the size of the train set")
    if isinstance(examples, Images):
        Augmentation(examples.shape, run.augment, run.cutout, run.cutout_share)


def _check_optimizer(run: RunConfig, model: nn.Module) -> None:
    from fenland.lab.training.optimizers import build_optimizer

    try:
        build_optimizer(run, model)
    except (ValueError, TypeError) as error:
        raise BadInput("optimizers", run.optimizer, f"does not fit the model {run.model}: {error}") from error


def _by(runs: Sequence[RunConfig], *names: str) -> dict[tuple[Any, ...], list[RunConfig]]:
    """Runs that agree in these fields together."""
    groups: dict[tuple[Any, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(tuple(getattr(run, name) for name in names), []).append(run)
    return groups


def _prepare(out: Path, store: Store) -> None:
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput("out", out, f"cannot be created ({error.strerror}); choose another directory") from None


def _write_request(
    out: Path, runs: Sequence[RunConfig], arguments: Sequence[str], fields: Sequence[str] | None
) -> None:
    """``compare.json``: which of the stored runs belong to this comparison, and the command that made it."""
    optimizers = list(dict.fromkeys(run.optimizer for run in runs))
    content = {
        "command": shlex.join(["fenland", *arguments]) if arguments else None,
        "optimizers": optimizers,
        "baseline": next((base for base in BASES if base in optimizers), optimizers[0]),
        "runs": [run.hash for run in runs],
    }
    if fields is not None:
        content["fields"] = list(fields)
    write_json(out / "compare.json", content)
