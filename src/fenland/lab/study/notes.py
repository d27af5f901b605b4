"""The notes below a table of claims: what several claims have in common is said once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# A full stop after one of these ends no sentence.
ABBREVIATIONS = ("Fig.", "Figs.", "Sec.", "Eq.", "al.", "vs.", "e.g.", "i.e.")
# A sentence that begins with one of these is about the sentence before it, and stays with it.
LEANING = ("It ", "Its ", "They ", "This ", "That ", "These ", "Those ", "So ", "Hence ")


def shared(told: Iterable[tuple[int, Sequence[str]]]) -> list[tuple[str, str]]:
    """Claim numbers in words, each with what is told of exactly these claims, by the first of the numbers.

    Args:
        told: a claim's number and its sentences.
    """
    holders: dict[str, list[int]] = {}
    for number, parts in told:
        for sentence in dict.fromkeys(parts):
            holders.setdefault(sentence, []).append(number)
    groups: dict[tuple[int, ...], list[str]] = {}
    for sentence, numbers in holders.items():
        groups.setdefault(tuple(numbers), []).append(sentence)
    ordered = sorted(groups, key=lambda numbers: (numbers[0], -len(numbers)))
    return [(in_words(numbers), " ".join(groups[numbers])) for numbers in ordered]


def split(text: str) -> list[str]:
    """The sentences of a text, a leaning one together with what it leans on."""
    found: list[str] = []
    for part in re.split(r"(?<=\.) +", text.strip()):
        if found and (found[-1].endswith(ABBREVIATIONS) or part.startswith(LEANING)):
            found[-1] += f" {part}"
        elif part:
            found.append(part)
    return found


def in_words(numbers: Sequence[int]) -> str:
    """Rising numbers, with "to" where three or more follow each other: 1 to 4, 7, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(words)
