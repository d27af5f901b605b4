"""A claim is data: a sentence, whose it is, and a statement about the tables. From it comes the whole verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fenland.lab.study.parts import Measured, Source, Statement, Verdict
from fenland.lab.study.words import sentences

Note = str | Callable[[Measured], str]


@dataclass(frozen=True)
class Claim:
    """What is said.

    Attributes:
        sentence: one that can be false.
        source: whose it is.
        statement: relation of a contrast to a bound, or a function that finds out by itself.
        figure: name of the figure that shows it; empty for the study's first.
        scope: "paper" where only runs of the published scale can decide it: the configuration then says in ``why()``
            why these cannot, or "".
        expected: in words, where the statement's own do not do.
        notes: what a reader must know to weigh it, one or several; functions of the tables too.
    """

    sentence: str
    source: Source
    statement: Statement
    figure: str = ""
    scope: Literal["", "paper"] = ""
    expected: str = ""
    notes: Note | tuple[Note, ...] = ()


Claims = Sequence[Claim] | Callable[[Measured], Iterable[Claim]]


def judge(claims: Claims, measured: Measured, beside: Sequence[Callable[[Measured], str]] = ()) -> list[Verdict]:
    """Every claim's verdict. One that does not hold is a finding: it is reported as it is."""
    every = claims(measured) if callable(claims) else claims
    return [_verdict(each, measured, [note(measured) for note in beside]) for each in every]


def _verdict(claim: Claim, measured: Measured, beside: Sequence[str]) -> Verdict:
    found = claim.statement(measured)
    small = measured.config.why() if claim.scope == "paper" else ""
    holds = None if small else found.holds
    why = small or (found.open if holds is None else "")
    given = claim.notes if isinstance(claim.notes, tuple) else (claim.notes,)
    notes = [note if isinstance(note, str) else note(measured) for note in given]
    return Verdict(
        claim.sentence, str(claim.source), claim.expected or found.expected, found.measured, holds,
        sentences(why, *notes, found.note, *beside), claim.figure, claim.source.ours,
    )  # fmt: skip
