"""What a split of texts holds, for people who look before they train."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fenland.lab.data.images import stratified
from fenland.lab.data.source import Split

_SHOWN, _WIDTH = 4, 100


@dataclass(frozen=True)
class SeenTexts:
    """The texts of one split."""

    empty: int  # how many rows have none
    words: tuple[int, int, int]  # the least, the median and the most words of a text
    examples: tuple[str, ...]  # a few, the same ones each time, chosen over all classes; cut to a line
    all: tuple[str, ...]  # every text, for the comparison of two splits


def survey(split: Split) -> SeenTexts:
    """Read the texts of a split."""
    assert split.texts is not None
    texts = [text or "" for text in split.texts()]
    counts = [len(text.split()) for text in texts if text.strip()] or [0]
    words = min(counts), int(np.median(counts)), max(counts)
    rows = stratified(split.labels, min(_SHOWN, len(texts)), seed=0)
    examples = tuple(f"{split.labels[row]}: {_line(texts[row])}" for row in rows)
    return SeenTexts(sum(not text.strip() for text in texts), words, examples, tuple(filter(str.strip, texts)))


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."
