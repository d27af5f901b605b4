"""What the papers show, item by item: what it takes to repeat it, what was run, and whether that is the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A figure, a table or a statement of a paper."""

    paper: str  # its short name
    item: str  # figure, table, theorem
    study: str  # that repeats it
    needs: str  # what a faithful repetition takes
    differs: str = ""  # in what the study's preset ``paper`` is not the paper, or may not be; empty where it is
    anyway: str = ""  # whether it is faithful and why, where that does not depend on the preset; empty where it does


@dataclass(frozen=True)
class Ran:
    """What was run of a study."""

    study: str  # its name
    words: str  # preset, data and fields that were set
    published: bool  # whether it is the preset ``paper``


def faithful(item: Item, ran: Sequence[Ran]) -> tuple[str, str]:
    """What was run for an item, and whether that is faithful: yes, in part, no; and why."""
    own = [each for each in ran if each.study == item.study]
    if not own:
        return "nothing yet", "no: not run"
    words = "; ".join(dict.fromkeys(each.words for each in own))
    if item.anyway:
        return words, item.anyway
    if any(each.published for each in own):
        return words, f"in part: {item.differs}" if item.differs else "yes"
    return words, "no: at a smaller scale" + (f", and {item.differs}" if item.differs else "")
