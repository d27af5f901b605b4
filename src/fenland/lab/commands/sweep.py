"""``fenland sweep``."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.config.words import whole
from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from rich.console import Console

_Number = Annotated[str, option(metavar="NUMBER")]
_Folder = Annotated[str, option(metavar="DIR")]
COMPARE, QUICK = "compare", "quick"


@dataclass(frozen=True)
class Sweep:
    """Run every combination of the values that you set fields to.

    TARGET is compare, with the fields of a training run, or a study (see fenland study --list), which is run once for
    each combination. Separate values by commas; 0..9 means the numbers from 0 to 9. If a field is a list itself,
    separate its lists by semicolons.

    Runs that are stored under OUT are not repeated, and a run that was cut off continues from its checkpoint. So you
    may kill a sweep and start it again. Several sweeps may share the work on one OUT. OUT/log.txt says what failed.

    Example: fenland sweep compare --set optimizer=sgd,sam,ssam --set rho=0.01,0.05,0.1 --set seed=0..9 --workers 2
    --out out/radii

    Exit codes: 0 all runs are stored, 1 some failed, 2 wrong arguments, 130 interrupted.
    """

    target: Annotated[Positional[str], option(metavar="TARGET")]
    """compare, or the name of a study or the Python file of one of yours."""
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=VALUES")] = ()
    """A field and its values; may be given several times. rho is left out where the optimizer has no radius."""
    preset: Annotated[str, option(metavar="NAME")] = QUICK
    """Of a study, for the fields that are not set: quick or paper."""
    workers: _Number = "1"
    """Processes that share the runs; with --ray local: runs at once."""
    ray: Annotated[str, option(metavar="ADDRESS")] = ""
    """Run on a Ray cluster: HOST:PORT, auto (the one this machine belongs to), or local (one of this machine's own).
    Every node needs fenland and the data at the same absolute path; results are stored here, by this command."""
    cpus_per_run: _Number = "1"
    """Cores that each run gets on the cluster; fractions too."""
    gpus_per_run: _Number = "0"
    """GPUs that each run gets on the cluster; compare then trains on cuda, a study on its field device."""
    logger: Annotated[tuple[str, ...], option(metavar="NAME ...")] = ()
    """Also tell tensorboard, mlflow or wandb of every training run, in trackers/ beside runs/."""
    data_root: _Folder = ""
    """Of a study: folder with mnist/, cifar10/, ... of parquet files, instead of a download."""
    out: _Folder = ""
    """Output directory. Default: out/sweep-TARGET."""
    json: bool = False
    """Print one JSON document instead of the table; progress goes to stderr."""

    def run(self, arguments: list[str]) -> int:
        """Run them, print the table, and say what went wrong."""
        from fenland.lab.studies import STUDIES, is_file

        if self.target not in (COMPARE, *STUDIES) and not is_file(self.target):
            raise BadInput("TARGET", self.target, one_of((COMPARE, *STUDIES), self.target))
        out = Path(self.out or f"out/sweep-{Path(self.target).stem}")
        console = output.console(stderr=self.json)
        try:
            if self.target == COMPARE:
                return self._compare(out, console, arguments)
            return self._study(out, console, arguments)
        except KeyboardInterrupt:
            return shared.interrupted(out)

    def _workers(self) -> int:
        return whole("workers", self.workers)

    def _compare(self, out: Path, console: Console, arguments: list[str]) -> int:
        with logs.waiting("torch"):
            from fenland.lab.commands import tables
            from fenland.lab.compare.comparison import carry_out
            from fenland.lab.store.runs import Store
            from fenland.lab.sweep import settings

        if self.preset != QUICK:
            raise BadInput("preset", self.preset, "is for studies; here every field is set by itself, leave it out")
        if self.data_root:
            raise BadInput("data-root", self.data_root, "is for studies; here write --set data_dir=DIR")
        ray = shared.cluster(self.ray, self.cpus_per_run, self.gpus_per_run, self._workers())
        with logs.waiting("the data"):
            plan = settings.plan(self.set, device="cuda" if ray is not None and ray.gpus else None)
        done = carry_out(plan.runs, out, console, self._workers(), arguments, ray, plan.fields, self.logger)
        table = settings.table(plan, Store(out))
        if self.json:
            output.print_json({**shared.counts(done), "settings": table.to_dict("records")})
        else:
            output.console().print(tables.settings(table, plan.fields))
            print(*[line for line in (done.headline, done.report) if line], sep="\n")
        return shared.ending(done)

    def _study(self, out: Path, console: Console, arguments: list[str]) -> int:
        with logs.waiting("torch"):
            from fenland.lab.commands import tables
            from fenland.lab.compare.comparison import check_out
            from fenland.lab.studies import STUDIES, find
            from fenland.lab.study import sweep as study_sweep
            from fenland.lab.study.index import write_index
            from fenland.lab.sweep.trackers import check_trackers

            study = find(self.target)
        check_trackers(self.logger)
        workers, plan = self._workers(), study_sweep.plan(study, self.preset, self.set)
        ray = shared.cluster(self.ray, self.cpus_per_run, self.gpus_per_run, workers)
        check_out(out)
        root = shared.data_root(self.data_root)
        out.mkdir(parents=True, exist_ok=True)
        with logs.kept(out / "log.txt"):
            options = {"workers": workers, "data_root": root, "ray": ray, "trackers": self.logger}
            done = list(study_sweep.run(plan, out, console, **options))
        failed = [setting for setting in done if setting.verdicts is None]
        index = write_index(out, list(STUDIES)) if len(failed) < len(done) else None
        if self.json:
            rows = [{"set": each.values, "report": each.report, "error": each.error or None} for each in done]
            verdicts = [[asdict(verdict) for verdict in each.verdicts or ()] for each in done]
            settings = [{**row, "verdicts": each} for row, each in zip(rows, verdicts, strict=True)]
            output.print_json({"out": out, "index": index, "settings": settings})
        else:
            output.console().print(tables.verdicts(done, plan.fields))
            print(*([index] if index else []))
        for each in failed:
            print(f"fenland: {each.values} failed: {each.error}", file=sys.stderr)
        return output.FAILED if failed else output.OK
