"""How many claims hold: those of papers and our own apart, each claim once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fenland.lab.study.parts import Verdict
from fenland.lab.study.words import together


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many hold, in one sentence for each kind of claim."""
    kinds = (("Claims of papers", False), ("Claims of our own", True))
    groups = [(words, [each for each in verdicts if each.ours is kind]) for words, kind in kinds]
    return " ".join(f"{words}: {_counted(group)}." for words, group in groups if group) or "Nothing was judged."


def _counted(verdicts: Sequence[Verdict]) -> str:
    held, broken, left = (sum(verdict.holds is holds for verdict in verdicts) for holds in (True, False, None))
    if held == len(verdicts):
        return f"all {held} hold" if held > 1 else "the one there is holds"
    parts = [f"{held} of {len(verdicts)} {'holds' if held == 1 else 'hold'}"]
    parts += [f"{broken} {'does' if broken == 1 else 'do'} not"] if broken else []
    parts += [f"{left} cannot be decided at this scale"] if left else []
    return ", ".join(parts)


def once(studies: Iterable[tuple[str, bool, Sequence[Verdict]]]) -> list[Verdict]:
    """One verdict a claim of studies that were run at several scales or settings.

    The published scale counts where it was run. Of several runs of one scale the claim has to hold in each; it is the
    same claim where its sentence differs in numbers alone.

    Args:
        studies: name, whether it is the published scale, verdicts.
    """
    found: dict[tuple[str, str, int], list[tuple[bool, Verdict]]] = {}
    for name, published, verdicts in studies:
        seen: dict[str, int] = {}
        for verdict in verdicts:
            sentence = bare(verdict.claim)
            seen[sentence] = seen.get(sentence, 0) + 1
            found.setdefault((name, sentence, seen[sentence]), []).append((published, verdict))
    return [_one(each) for each in found.values()]


def bare(sentence: str) -> str:
    """A sentence without its numbers."""
    return re.sub(r"\d+(\.\d+)?", "#", sentence)


def _one(found: Sequence[tuple[bool, Verdict]]) -> Verdict:
    best = max(published for published, _ in found)
    same = [verdict for published, verdict in found if published is best]
    return replace(same[0], holds=together(verdict.holds for verdict in same))


def figure_of(wanted: str, names: Sequence[str]) -> str:
    """The figure that shows a verdict: the one it names, else the first; empty where there is none."""
    return wanted if wanted in names else (names[0] if names else "")
