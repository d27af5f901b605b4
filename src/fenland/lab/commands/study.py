"""``fenland study``."""

from __future__ import annotations

import logging
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.config.words import pairs, whole
from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fenland.lab.study.run import Done
    from fenland.lab.study.study import Study as Any_Study
    from fenland.lab.sweep.cluster import Cluster

ALL = "all"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """Repeat figures and tables of the papers, and judge their claims.

    It writes OUT/NAME/report.html for each study and OUT/index.html over all. What is stored under OUT is not measured
    again, so you may stop the command and start it again.

    Example: fenland study quartic --preset quick --set radii=0.1,0.5 --out out/studies

    Exit codes: 0 every study ran (a verdict that does not hold is a finding), 1 some failed, 2 wrong arguments,
    130 interrupted.
    """

    names: Annotated[Positional[tuple[str, ...]], option(metavar="NAME")] = ()
    """Studies to run, or all; see --list. The path of a Python file runs the study in it."""
    preset: Annotated[str, option(metavar="NAME")] = "quick"
    """quick (minutes on a laptop), paper (the published scale) or, where a study has it, two-cores (published data and
    lengths of training, as far as two cores get in hours)."""
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=VALUE")] = ()
    """Set a field of the configuration, as in --set seeds=0..9; may be given several times. Several studies: those
    that have the field."""
    out: Annotated[str, option(metavar="DIR")] = "out/studies"
    """Output directory."""
    workers: Annotated[str, option(metavar="NUMBER")] = "1"
    """Processes that share training runs."""
    data_root: Annotated[str, option(metavar="DIR")] = ""
    """Folder with mnist/, cifar10/, ... of parquet files, instead of a download."""
    ray: Annotated[str, option(metavar="ADDRESS")] = ""
    """Share training runs on a Ray cluster: its address, or local."""
    cpus_per_run: Annotated[str, option(metavar="NUMBER")] = "1"
    """Cores that each training run gets on the cluster; fractions too."""
    gpus_per_run: Annotated[str, option(metavar="NUMBER")] = "0"
    """GPUs that each training run gets on the cluster; fractions too. Its device is the study's own field."""
    logger: Annotated[tuple[str, ...], option(metavar="NAME ...")] = ()
    """Also tell tensorboard, mlflow or wandb (several allowed) of every training run, in OUT/trackers."""
    list: bool = False
    """List the studies, or the fields of those that are named; run nothing."""
    table: Annotated[str, option(metavar="DIR")] = ""
    """Print the table of claims, published, measured and whether they hold, over the studies (or record files) in this
    folder, as Markdown; with --json as records. Runs nothing."""
    plan: bool = False
    """Say what the studies would train and take, from two steps of each distinct run on this machine; run nothing."""
    json: bool = False
    """Print one JSON document; progress goes to stderr."""

    def run(self, arguments: Sequence[str]) -> int:
        """Run them one after the other, print verdicts and paths."""
        from fenland.lab.studies import STUDIES, find

        if self.table:
            shared.alone(self, "table", "names", "json")
            return self._table()
        if not (self.names or self.list):
            raise BadInput("NAME", "nothing", f"{one_of([ALL, *STUDIES])}; fenland study --list says what they are")
        with logs.waiting("torch"):
            named = {name: find(name) for name in self.names if name != ALL}
            every = ALL in self.names or not self.names
            studies = [find(name) for name in STUDIES] if every else list(named.values())
        if self.list:
            shared.alone(self, "list", "names", "json")
            return self._list(studies)
        with logs.waiting("torch"):
            plans = self._plans(studies)
        if self.plan:
            from fenland.lab.commands.plans import show

            return show(studies, self.preset, plans, shared.data_root(self.data_root), self.json)
        try:
            return self._run_all(studies, plans, output.console(stderr=self.json))
        except KeyboardInterrupt:
            return shared.interrupted(Path(self.out))

    def _table(self) -> int:
        with logs.waiting("torch"):
            from fenland.lab.studies import STUDIES, find
            from fenland.lab.study.records import collect, markdown, plain

        if not Path(self.table).is_dir():
            raise BadInput("table", self.table, "no such directory; give the --out of `fenland study`")
        records = [
            each for each in collect(Path(self.table), list(STUDIES)) if {ALL, each.study} & {*(self.names or [ALL])}
        ]
        if not records:
            raise BadInput("NAME", ", ".join(self.names), f"not stored in {self.table}")
        if self.json:
            output.print_json(plain(records))
            return output.OK
        known = {each.study: find(each.study) for each in records if each.study in STUDIES}
        print(markdown(records, known), end="")
        return output.OK

    def _plans(self, studies: Sequence[Any_Study]) -> Sequence[dict[str, str]]:
        """Everything that can be wrong is found before anything runs."""
        from fenland.lab.compare.comparison import check_out
        from fenland.lab.study.plan import Folders, check_here
        from fenland.lab.study.settings import configure, fields
        from fenland.lab.sweep.trackers import check_trackers

        whole("workers", self.workers)
        self._cluster()
        check_trackers(self.logger)
        check_out(Path(self.out))
        shared.data_root(self.data_root)
        given = pairs(self.set)
        own = {study.name: [row["field"] for row in fields(study)] for study in studies}
        for name, value in given.items():
            if not any(name in known for known in own.values()):
                only = len(studies) == 1
                words = f"{studies[0].name} has no such field; {one_of(own[studies[0].name], name)}"
                cure = words if only else "none of these studies has such a field; see fenland study NAME --list"
                raise BadInput("set", f"{name}={value}", cure)
        plans = [{name: value for name, value in given.items() if name in own[study.name]} for study in studies]
        folders: Any = Folders(shared.data_root(self.data_root))
        for study, plan in zip(studies, plans, strict=True):
            config = configure(study, self.preset, plan)
            if not self.plan:
                check_here(study, self.preset, config, study.trained(config, folders))
        return plans

    def _cluster(self) -> Cluster | None:
        return shared.cluster(self.ray, self.cpus_per_run, self.gpus_per_run, int(self.workers))

    def _run_all(self, studies: Sequence[Any_Study], plans: Sequence[dict[str, str]], console: Console) -> int:
        from fenland.lab.studies import STUDIES
        from fenland.lab.study.index import write_index
        from fenland.lab.study.run import run_study, write_failure

        out = Path(self.out)
        done: Sequence[Done] = ()
        failed: dict[str, str] = {}
        for number, (study, plan) in enumerate(zip(studies, plans, strict=True), 1):
            console.print(f"[{number}/{len(studies)}] {study.name}: {study.title}", markup=False, highlight=False)
            try:
                found = run_study(
                    study, self.preset, plan, out, console=console, workers=int(self.workers),
                    data_root=shared.data_root(self.data_root), ray=self._cluster(), trackers=self.logger,
                )  # fmt: skip
            # The border of a list of studies: whatever one raises must not end the others.
            except Exception as error:
                words = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
                failed[study.name] = words
                print(f"fenland: {study.name} failed: {words}", file=sys.stderr)
                _LOG.info("%s", traceback.format_exc())
                write_failure(out, study.name, words, traceback.format_exc())
            else:
                done = (*done, found)
                self._show(found, console)
        index = write_index(out, list(STUDIES))
        self._close(done, failed, index)
        return output.FAILED if failed else output.OK

    def _show(self, found: Done, console: Console) -> None:
        from fenland.lab.sweep.progress import duration

        words = {True: "holds", False: "DOES NOT HOLD", None: "not decided"}
        for verdict in found.verdicts:
            line = f"  {words[verdict.holds]:<13}  {verdict.claim}  {verdict.measured}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        took = f"{duration(found.seconds)} of computing" + (", measured earlier" if found.reused else "")
        console.print(f"  {found.report} ({took})", markup=False, highlight=False, soft_wrap=True)

    def _close(self, done: Sequence[Done], failed: dict[str, str], index: Path) -> None:
        from fenland.lab.study.tally import tally

        if self.json:
            studies = [
                {"study": each.name, "report": each.report, "seconds": each.seconds, "reused": each.reused}
                | {"verdicts": [asdict(verdict) for verdict in each.verdicts]}
                for each in done
            ]
            output.print_json({"index": index, "studies": studies, "failed": failed})
            return
        verdicts = [verdict for each in done for verdict in each.verdicts]
        if len(done) > 1:
            print(tally(verdicts))
        if failed:
            print(f"{len(failed)} of {len(done) + len(failed)} studies failed; the same command tries them again")
        print(index)

    def _list(self, studies: Sequence[Any_Study]) -> int:
        from fenland.lab.study.settings import fields

        if self.json:
            rows = [
                {"study": each.name, "title": each.title, "source": str(each.source), "question": each.question}
                | {"fields": fields(each)}
                for each in studies
            ]
            output.print_json(rows)
            return output.OK
        if not self.names:
            table = output.table(("study", "what it shows", "source"), bold=1)
            for study in studies:
                table.add_row(study.name, study.title, str(study.source))
            output.console().print(table)
            return output.OK
        for study in studies:
            table = output.table(("field", *study.presets), title=f"{study.name}: {study.title}")
            for row in fields(study):
                table.add_row(*(str(value) for value in row.values()))
            output.console().print(table)
        return output.OK
