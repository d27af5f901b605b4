"""A study: one file of data - cases, claims, figures, prose - and functions for what is computed in no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fenland.lab.study.claims import Claims, judge
from fenland.lab.study.grid import Grid
from fenland.lab.study.parts import Lab, Measured, Sheet, Source, Tables, Verdict
from fenland.lab.study.words import guessed, left_out, lossy, sentences

if TYPE_CHECKING:
    from pathlib import Path

    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn
    from fenland.lab.study.recipes import Recipe


def runs_left_out(measured: Measured) -> str:
    """What is said beside each claim where means are over the runs that finished."""
    return left_out(measured["runs"]) if "runs" in measured.tables else ""


def runs_guessed(measured: Measured) -> str:
    """What is said beside each claim where a diverged run counts as guessing."""
    return guessed(measured["runs"])


@dataclass(frozen=True)
class Study:
    """One experiment, as data. A file that is a study binds it to the name ``STUDY``.

    Measuring leaves tables and nothing else; figures and verdicts are functions of the configuration and the tables,
    so that a page can be written again without computing anything again.

    Attributes:
        name: its name on the command line.
        title: the title of its page.
        source: the paper with figure, year and arXiv id or journal.
        question: the question that it asks, in one or two sentences.
        config: a frozen dataclass of plain values, which ``--set`` can set. Its ``__post_init__`` refuses wrong ones.
        runs: what measures: a `Grid` of training runs, or a function of the configuration and the `Lab` that returns
            tables.
        claims: the claims that are judged; a function of `Measured` where they depend on the configuration.
        figures: functions that draw figures from `Measured`, such as `Seeds`, `curves` and `Plot`.
        sheets: functions that make tables of numbers for the page.
        choices: what the paper leaves open and how it was read here, one sentence for each point.
        quick: fields of the preset ``quick`` (2 minutes on 2 cores; 15 s where no network is trained) that differ from
            the configuration's defaults.
        paper: likewise of the preset ``paper``, the published scale.
        two_cores: likewise of the preset ``two-cores``: published data and lengths of training where two cores get
            there in hours. Empty for none.
        trains: the training runs of a configuration, where ``runs`` is no `Grid`; None where no network is trained.
        beside: functions that write a sentence beside every claim and figure, as about diverged runs.
        file: the file from which it was read; None where it is a part of fenland.
    """

    name: str
    title: str
    source: Source
    question: str
    config: Callable[..., Any]
    runs: Callable[[Any, Lab], Tables]
    claims: Claims
    figures: Sequence[Recipe] = ()
    sheets: Sequence[Callable[[Measured], Sheet | Sequence[Sheet]]] = ()
    choices: tuple[str, ...] = ()
    quick: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] = field(default_factory=dict)
    two_cores: Mapping[str, Any] = field(default_factory=dict)
    trains: Callable[[Any, Lab], Sequence[RunConfig]] | None = None
    beside: Sequence[Callable[[Measured], str]] = (lossy, runs_left_out)
    file: Path | None = None

    @property
    def presets(self) -> dict[str, Any]:
        """The configurations of the presets, by name."""
        every = {"quick": self.quick, "paper": self.paper} | ({"two-cores": self.two_cores} if self.two_cores else {})
        return {name: self.config(**fields) for name, fields in every.items()}

    def trained(self, config: Any, lab: Lab) -> Sequence[RunConfig]:
        """The training runs of a configuration, none where it trains no network."""
        if isinstance(self.runs, Grid):
            return self.runs.runs(config, lab)
        return self.trains(config, lab) if self.trains is not None else ()

    def judge(self, config: Any, tables: Tables) -> list[Verdict]:
        """One verdict for each claim."""
        return judge(self.claims, Measured(config, tables), self.beside)

    def draw(self, config: Any, tables: Tables) -> list[Drawn]:
        """The figures, with what ``beside`` says in their captions."""
        measured = Measured(config, tables)
        drawn = [figure for recipe in self.figures for figure in _several(recipe(measured))]
        notes = [note(measured) for note in self.beside]
        return [dataclasses.replace(each, caption=sentences(each.caption.strip(), *notes)) for each in drawn]

    def list(self, config: Any, tables: Tables) -> list[Sheet]:
        """The tables of numbers."""
        measured = Measured(config, tables)
        return [sheet for recipe in self.sheets for sheet in _several(recipe(measured))]


def _several(found: Any) -> Sequence[Any]:
    return found if isinstance(found, (list, tuple)) else [found]
