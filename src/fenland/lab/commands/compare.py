"""``fenland compare``."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.config.entry import AUTO
from fenland.lab.config.run_config import FIELDS, SHARED, of_field, written
from fenland.lab.config.words import whole

if TYPE_CHECKING:
    from fenland.lab.compare.comparison import Comparison

_Word = Annotated[str, option(metavar="NAME")]
_Words = Annotated[tuple[str, ...], option(metavar="NAME ...")]
_Radii = Annotated[tuple[str, ...], option(metavar="R|NAME=R ...")]
_Number = Annotated[str, option(metavar="NUMBER")]
_Options = Annotated[tuple[str, ...], option(metavar="NAME:OPTION=VALUE ...")]
_Folder = Annotated[str, option(metavar="DIR")]


def _option(name: str) -> tuple[str, Any, Any]:
    """A field of a run as an option of the command line, from its row in the table."""
    entry = FIELDS[name]
    return name, Annotated[str, option(metavar=entry.allowed.metavar, help=entry.help)], field(default=written(name))


if TYPE_CHECKING:

    class _Fields:
        """The options that the table of fields gives."""

else:
    _Fields = make_dataclass("_Fields", map(_option, SHARED), frozen=True)


@dataclass(frozen=True)
class Compare(_Fields):
    """Train several optimizers with several seeds and compare them.

    It prints a table and writes OUT/report.html. Runs that are stored under OUT are not repeated, so you may stop the
    command and start it again. 'auto' takes the default of the data set.

    Example: fenland compare --data digits --optimizers sgd sam ssam --out out/demo

    Exit codes: 0 all runs are stored, 1 some failed, 2 wrong arguments, 130 interrupted.
    """

    optimizers: _Words = ("sgd", "sam", "ssam")
    """sgd, sam, usam, ssam, ssam-u (the paper's SSAM, on the unnormalised ascent), or a method of fenland variants in
    small letters."""
    rho: _Radii = ()
    """Radius of the ascent: one for all, or one each as in: sam=0.05 usam=0.2. Default 0.05."""
    options: _Options = ()
    """Arguments of an optimizer's preset, as in: asam:eta=0.1 gsam:alpha=0.4 (see fenland variants)."""
    seeds: _Number = "5"
    """How many seeds, or which, as in 0..9 or 3,5; intervals need at least 2."""
    workers: _Number = "1"
    """Processes that share the runs: the best use of several cores."""
    ray: Annotated[str, option(metavar="ADDRESS")] = ""
    """Run on a Ray cluster: HOST:PORT, auto, or local (see fenland sweep --help)."""
    cpus_per_run: _Number = "1"
    """Cores that each run gets on the cluster; fractions too."""
    gpus_per_run: _Number = "0"
    """GPUs that each run gets on the cluster; fractions too. Then it trains on cuda."""
    logger: _Words = ()
    """Also tell tensorboard, mlflow or wandb (several allowed), in OUT/trackers."""
    out: _Folder = ""
    """Output directory. Default: out/compare-DATA."""
    json: bool = False
    """Print one JSON document instead of the table; progress goes to stderr."""

    def run(self, arguments: list[str]) -> int:
        """Compare, print, and say what went wrong."""
        self._read_words()
        with logs.waiting("torch"):
            from fenland.lab.compare.comparison import compare
            from fenland.lab.sweep.planning import Request

        workers = whole("workers", self.workers)
        ray = shared.cluster(self.ray, self.cpus_per_run, self.gpus_per_run, workers)
        fields = {name: getattr(self, name) for name in SHARED}
        request = Request(fields, _split(self.optimizers), _split(self.rho), self.options, self.seeds)
        out = Path(self.out or f"out/compare-{shared.data_name(fields['data'])}")
        console = output.console(stderr=self.json)
        try:
            done = compare(request, out, console, workers, arguments, ray, _split(self.logger))
        except KeyboardInterrupt:
            return shared.interrupted(out)
        self._show(done)
        return shared.ending(done)

    def _read_words(self) -> None:
        """Refuse a word at once that can be no value of its field, before what trains is loaded."""
        for name in SHARED:
            if getattr(self, name) != AUTO or not FIELDS[name].auto:
                of_field(name, getattr(self, name))

    def _show(self, done: Comparison) -> None:
        from fenland.lab.commands import tables

        if self.json:
            rows = [] if done.table is None else done.table.to_dict("records")
            output.print_json({**shared.counts(done), "optimizers": rows})
        elif done.table is not None:
            output.console().print(tables.comparison(done.table))
            print(*[line for line in (done.headline, done.report) if line], sep="\n")


def _split(words: tuple[str, ...]) -> tuple[str, ...]:
    """A list of the command line: between spaces, commas, or both."""
    return tuple(part for word in words for part in word.split(",") if part)
