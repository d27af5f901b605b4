"""What a study is: a configuration with presets, a run that leaves tables, figures of the tables, and verdicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    from torch import Tensor

    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn
    from fenland.lab.store.records import Records

Tables = dict[str, "pandas.DataFrame"]
C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """One claim of a paper, beside what was measured.

    Attributes:
        claim: one sentence that can be false.
        source: whose it is: paper and figure, table or section; or "ours".
        expected: the value or relation that the claim says, in words and numbers.
        measured: the same as measured, with its 95 % interval over seeds where there are seeds.
        holds: whether the measurement agrees; None where this scale cannot decide it, and the note says why.
        note: what a reader must know to weigh it.
        figure: name of the figure that shows it; empty for the study's first.
    """

    claim: str
    source: str
    expected: str
    measured: str
    holds: bool | None
    note: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table of numbers on a study's page.

    Attributes:
        title: what it holds, with the unit.
        caption: how to read it.
        heads: of the columns, the first one that of the rows.
        rows: as many words each.
    """

    title: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Piece:
    """A table that depends on no other piece: `Lab.keep_all` may compute it in another process.

    Attributes:
        name: of the table, for people who look at the files.
        key: plain values that fix what is computed, all of them.
        compute: makes it; a function of a module, or `functools.partial` of one, with arguments that can be pickled.
    """

    name: str
    key: Mapping[str, Any]
    compute: Callable[[], pandas.DataFrame]

    def __str__(self) -> str:
        return f"piece {self.name} of " + ", ".join(f"{name}={value}" for name, value in self.key.items())


class Lab(Protocol):
    """What a study may use of the laboratory; `fenland.lab.study.run` has the real one."""

    workers: int

    def train(self, runs: Sequence[RunConfig]) -> Records:
        """Train what is not stored yet, and return the records of exactly these runs (diverged ones are results).

        Raises:
            RuntimeError: a run failed; the others are stored.
        """

    def weights(self, run: RunConfig) -> Mapping[str, Tensor]:
        """The final state dict of a run that was trained with ``weights=True``."""

    def weights_file(self, run: RunConfig) -> Path:
        """Where `weights` reads them, for pieces that are computed in another process."""

    def data_dir(self, data: str) -> str | None:
        """The folder of local parquet files for a data set; None for the embedded one and the hub."""

    def keep(self, name: str, key: Mapping[str, Any], compute: Callable[[], pandas.DataFrame]) -> pandas.DataFrame:
        """A table by the content of its key: computed once, stored whole, found again after a kill."""

    def keep_all(self, pieces: Sequence[Piece], what: str) -> list[pandas.DataFrame]:
        """As `keep`, in the order of the pieces, shared by worker processes where that saves time; shows progress."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """Pass the items on and show progress."""


class Study(ABC, Generic[C]):
    """One experiment. A subclass is one file, and registers itself by being listed in `fenland.lab.studies.STUDIES`.

    The run leaves tables and nothing else; figures and verdicts are functions of the configuration and the tables, so
    that a page can be written again without computing anything again.

    Attributes:
        name: on the command line.
        title: on the page.
        source: paper, figure, year, arXiv id or journal.
        question: what it asks, one or two sentences.
        choices: what the paper leaves open and how it was read here, a sentence each.
        version: to be raised when what a table's numbers mean changes: stored pieces of an older one are not reused.
        presets: ``quick`` (2 minutes on 2 cores; 15 s where no network is trained) and ``paper`` (published scale).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    question: ClassVar[str]
    choices: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    presets: Mapping[str, C]

    @abstractmethod
    def run(self, config: C, lab: Lab) -> Tables:
        """Measure."""

    @abstractmethod
    def figures(self, config: C, tables: Tables) -> list[Drawn]:
        """Draw; colours and sizes are those of `fenland.lab.figures.style`."""

    @abstractmethod
    def verdicts(self, config: C, tables: Tables) -> list[Verdict]:
        """Judge. A verdict that does not hold is a finding: it is reported as it is."""

    def sheets(self, config: C, tables: Tables) -> list[Sheet]:
        """Tables of numbers for the page; most studies have none."""
        return []
