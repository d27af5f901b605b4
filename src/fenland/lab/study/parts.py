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
    """Whose a claim is.

    Attributes:
        text: paper and figure, table or section; or why it is claimed here.
        ours: whether no paper makes the claim: such claims are counted apart.
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
    """A claim that no paper makes, and where it comes from."""
    return Source(f"ours: {why}", ours=True)


@dataclass(frozen=True)
class Measured:
    """What claims and figures are computed from: they are functions of it, so nothing is measured twice.

    Attributes:
        config: of the study.
        tables: by name.
    """

    config: Any
    tables: Tables

    def __getitem__(self, name: str) -> pandas.DataFrame:
        return self.tables[name]


@dataclass(frozen=True)
class Finding:
    """What a statement says of the tables.

    Attributes:
        expected: the value or relation that is claimed, in words and numbers.
        measured: the same as measured, with its 95 % interval over seeds where there are seeds.
        holds: whether they agree; None where that is open.
        note: what a reader must know to weigh it.
        open: why it is open, where it is.
    """

    expected: str
    measured: str
    holds: bool | None
    note: str = ""
    open: str = ""


Statement = Callable[[Measured], Finding]


@dataclass(frozen=True)
class Verdict:
    """One claim, beside what was measured.

    Attributes:
        claim: one sentence that can be false.
        source: whose it is: paper and figure, table or section; or "ours".
        expected: the value or relation that the claim says, in words and numbers.
        measured: the same as measured, with its 95 % interval over seeds where there are seeds.
        holds: whether the measurement agrees; None where this scale cannot decide it, and the note says why.
        note: what a reader must know to weigh it.
        figure: name of the figure that shows it; empty for the study's first.
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
    """What a study may use of the laboratory; `fenland.lab.study.laboratory` has the real one."""

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

    def keep_all(self, pieces: Sequence[Piece], what: str) -> list[pandas.DataFrame]:
        """Tables by the content of their keys: computed once, stored whole, found again after a kill.

        Args:
            pieces: in the order of the result; shared by worker processes where that saves time.
            what: they are, for the progress.
        """

    def track(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """Pass the items on and show progress."""
