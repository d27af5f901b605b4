"""The parts that a study is made of and that it leaves: sources, tables, findings, verdicts, sheets, pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    from torch import Tensor

    from fenland.lab.config import RunConfig
    from fenland.lab.store.records import Records

Tables = dict[str, "pandas.DataFrame"]
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Who makes a claim, and where.

    Attributes:
        text: the paper and its figure, table or section; or the reason why the claim is made here.
        ours: whether no paper makes the claim. Such claims are counted separately.
    """

    text: str
    ours: bool = False

    def at(self, place: str) -> Source:
        """A place in it."""
        return Source(f"{self.text}, {place}", self.ours)

    def __str__(self) -> str:
        return self.text


OURS = Source("ours", ours=True)


def ours(why: str) -> Source:
    """The source of a claim that no paper makes.

    Args:
        why: where the claim comes from, as in "from theory".
    """
    return Source(f"ours: {why}", ours=True)


@dataclass(frozen=True)
class Measured:
    """What was measured: claims and figures are functions of it, so nothing is measured twice.

    ``measured["runs"]`` is the table of that name.

    Attributes:
        config: the configuration of the study.
        tables: data frames by name.
    """

    config: Any
    tables: Tables

    def __getitem__(self, name: str) -> pandas.DataFrame:
        return self.tables[name]


@dataclass(frozen=True)
class Finding:
    """What a statement found in the tables.

    Attributes:
        expected: the value or relation that is claimed, in words and numbers.
        measured: the same as measured, with its 95 % interval over seeds where there are seeds.
        holds: whether they agree; None where that is open.
        note: what a reader must know to weigh the finding.
        open: the reason why it is open; empty where it is decided.
    """

    expected: str
    measured: str
    holds: bool | None
    note: str = ""
    open: str = ""


Statement = Callable[[Measured], Finding]


@dataclass(frozen=True)
class Verdict:
    """The judgement of one claim: what it says, what was measured, and whether they agree.

    Attributes:
        claim: one sentence that can be false.
        source: who makes it: paper and figure, table or section; or "ours".
        expected: the value or relation that the claim says, in words and numbers.
        measured: the same as measured, with its 95 % interval over seeds where there are seeds.
        holds: whether the measurement agrees; None where this scale cannot decide it, and the note says why.
        note: what a reader must know to weigh the verdict.
        figure: the name of the figure that shows it; empty for the study's first.
        ours: whether no paper makes the claim.
    """

    claim: str
    source: str
    expected: str
    measured: str
    holds: bool | None
    note: str = ""
    figure: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table of numbers on a study's page.

    Attributes:
        title: what it holds, with the unit.
        caption: how to read it.
        heads: the headings of the columns.
        rows: the cells of each row as texts, one for each column; the first names the row.
    """

    title: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Piece:
    """A table that depends on no other piece: `Lab.keep_all` may compute it in another process.

    Attributes:
        name: the name of the table, for people who look at the files.
        key: all the values that decide what is computed; plain numbers, texts and lists.
        compute: a function that makes the table. It must be one that can be pickled: a function of a module, or a
            `functools.partial` of one.
    """

    name: str
    key: Mapping[str, Any]
    compute: Callable[[], pandas.DataFrame]

    def __str__(self) -> str:
        return f"piece {self.name} of " + ", ".join(f"{name}={value}" for name, value in self.key.items())


class Lab(Protocol):
    """What a study may ask of the lab while it measures; the lab passes it to ``Study.runs``."""

    workers: int

    def train(self, runs: Sequence[RunConfig]) -> Records:
        """Train what is not stored yet, and return the records of exactly these runs (diverged ones are results).

        Raises:
            RuntimeError: a run failed; the others are stored.
        """

    def weights(self, run: RunConfig) -> Mapping[str, Tensor]:
        """The final state dict of a run that was trained with ``weights=True``."""

    def weights_file(self, run: RunConfig) -> Path:
        """The file that `weights` reads, for pieces that are computed in another process."""

    def data_dir(self, data: str) -> str | None:
        """The folder of local parquet files for a data set; None for the embedded one and the hub."""

    def keep_all(self, pieces: Sequence[Piece], what: str) -> list[pandas.DataFrame]:
        """Tables by the content of their keys: computed once, stored whole, found again after a kill.

        Args:
            pieces: the tables to compute, in the order of the result; worker processes share them where that saves
                time.
            what: what they are, for the line of progress.
        """

    def track(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """Pass the items on and show progress."""
