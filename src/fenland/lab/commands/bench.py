"""``fenland bench``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fenland.lab import logs
from fenland.lab.commands import output, shared
from fenland.lab.commands.option import option
from fenland.lab.errors import BadInput
from fenland.lab.store.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from fenland.lab.bench.timing import Plan, Row

_QUICK = (
    "SAM", "SSAM", "ASAM", "GSAM", "SAM (copy)", "bare move", "textbook SAM", "pip SAM", "pip WSAM", "pip LookSAM",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Time the step of every method beside the floor, the base, the textbook code and pip's.

    All take turns in one run, and figures are medians with half of the interquartile range. A method's cost is what it
    adds to the base's own step. Its unit is the floor: two norms and one pass a + s * b over the parameters.

    Example: fenland bench --sets resnet20 --bases sgd-fused --names SAM SSAM "textbook SAM"
    """

    sets: Annotated[tuple[str, ...], option(metavar="SET ...")] = ()
    """Parameter sets: resnet20, vit_s, wrn28_10, gpt2. All by default; memory for about 12 copies is needed."""
    bases: Annotated[tuple[str, ...], option(metavar="BASE ...")] = ()
    """sgd and adamw, each also as -foreach and -fused. All by default."""
    names: Annotated[tuple[str, ...], option(metavar="NAME ...")] = ()
    """Methods and peers, by the names of the table. All by default."""
    rounds: Annotated[int | None, option(metavar="N")] = None
    """Measurements of each, at least 3; by default fewer the larger the set is."""
    threads: Annotated[int | None, option(metavar="N")] = None
    """Threads of torch."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the thread's own time only, for a busy machine; it needs --threads 1."""
    quick: bool = False
    """A few methods on the smallest set, over plain and fused SGD."""
    memory: bool = False
    """Measure memory instead of time."""
    markdown: bool = False
    """With --memory: print docs/memory.md."""
    json: bool = False
    """Print the record as JSON instead of tables."""
    out: Annotated[Path | None, option(metavar="FILE.json")] = None
    """Write the record there, and PNG, PDF and SVG beside it, in a folder of the same name."""

    def run(self, arguments: list[str]) -> int:
        """Measure, show, write."""
        self._check_options()
        if self.memory:
            return _memory(self.markdown, self.json)
        with logs.waiting("torch"):
            import torch

            from fenland.lab.bench.timing import known, report
            from fenland.lab.compare.comparison import check_out
        plan = self._plan()
        known(plan.sets, plan.bases, plan.names)
        if self.out is not None:  # said before minutes of measuring, not after them
            check_out(self.out.parent)
        if plan.rounds is not None and plan.rounds < 3:
            raise BadInput("rounds", plan.rounds, "at least 3, for quartiles")
        if plan.clock == "cpu" and self.threads != 1:
            raise BadInput("clock", "cpu", "only with --threads 1: it does not see the work of other threads")
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with _progress(plan) as tick:
            record = report(plan, tick, self._keep)
        if self.json:
            output.print_json(record)
        else:
            _show(record)
        if self.out is not None:
            from fenland.lab.bench.picture import save

            paths = [self.out, *save(record, self.out.with_suffix(""))]
            output.console(stderr=True).print(f"wrote {paths[0]} and {len(paths) - 1} pictures in {paths[1].parent}")
        return output.OK

    def _check_options(self) -> None:
        """Refuse an option that another one leaves without a meaning, and a name that is none of a record."""
        if self.memory:
            shared.alone(self, "memory", "markdown", "json")
        elif self.markdown:
            raise BadInput("markdown", "on", "is the page of --memory; give that too")
        if self.markdown and self.json:
            raise BadInput("markdown", "on", "means nothing with --json; leave one of them out")
        if self.threads is not None and self.threads < 1:
            raise BadInput("threads", self.threads, "give a whole number >= 1")
        if self.out is not None and (self.out.suffix != ".json" or self.out.is_dir()):
            raise BadInput("out", self.out, "give a file name that ends with .json")

    def _keep(self, record: dict[str, Any]) -> None:
        if self.out is not None:
            _write(self.out, record)

    def _plan(self) -> Plan:
        from fenland.lab.bench.contenders import BASES
        from fenland.lab.bench.shapes import SETS
        from fenland.lab.bench.timing import Plan

        sets = self.sets or (("resnet20",) if self.quick else tuple(SETS))
        bases = self.bases or (("sgd-foreach", "sgd-fused") if self.quick else tuple(BASES))
        return Plan(sets, bases, self.names or (_QUICK if self.quick else ()), self.rounds, clock=self.clock)


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[], None]]:
    """A bar over the rounds of all sets and bases, on stderr."""
    from rich.progress import Progress

    from fenland.lab.bench.contenders import variants
    from fenland.lab.bench.shapes import SETS, count
    from fenland.lab.bench.timing import groups_of

    total = 0
    for name, base in plan.parts():
        size = count(SETS[name]())
        names = [n for n in variants(size) if not plan.names or n in plan.names]
        total += plan.rounds_of(size)[0] * groups_of(names, size, base)
    with Progress(console=output.console(stderr=True), transient=True) as bars:
        task = bars.add_task("measuring", total=total)
        yield lambda: bars.advance(task)


def _show(record: dict[str, Any]) -> None:
    console = output.console()
    for name, bases in record["sets"].items():
        for base, rows in bases.items():
            console.print(_table(f"{name}, base {base}", rows))
    if not any("pip SAM" in rows for bases in record["sets"].values() for rows in bases.values()):
        console.print("pytorch-optimizer's optimizers were not asked for, or are not installed (fenland\\[bench])")
    machine = record["machine"]
    console.print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}")


def _table(title: str, rows: dict[str, Row]) -> Any:
    table = output.table(("",), ("ms", "±", "extra ms", "floors", "own floors"), bold=1, title=title)
    for who, row in rows.items():
        rest = [
            f"{row[key]:.{digits}f}" if key in row else ""
            for key, digits in (("extra_ms", 3), ("floors", 2), ("own", 2))
        ]
        table.add_row(who, f"{row['ms']:.3f}", f"{row['spread_ms']:.3f}", *rest)
    return table


def _memory(markdown: bool, as_json: bool) -> int:
    from dataclasses import asdict

    with logs.waiting("torch"):
        from fenland.lab.bench.memory import of_preset, page
        from fenland.presets import PRESETS

    with logs.waiting("a step of every method"):
        found: Any = {name: asdict(of_preset(name)) for name in PRESETS} if as_json else page()
    if as_json:
        output.print_json(found)
    elif markdown:
        print(found, end="")
    else:
        from rich.markdown import Markdown

        output.console().print(Markdown(found))
    return output.OK


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record, indent=1)
