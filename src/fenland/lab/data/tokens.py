"""A tokenised data set of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fenland.lab.data import classes
from fenland.lab.data.images import Labels
from fenland.lab.data.source import Split

Numbers = npt.NDArray[np.int32]
#: From texts to the numbers of their tokens, already cut to what the model takes.
Tokenizer: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[int]]]
#: Stands where a text has ended. No tokenizer has such a token, so that the model knows what to leave out.
END = -1


@dataclass(frozen=True)
class Tokens:
    """Train and test texts as numbers of tokens, the shorter ones filled with ``END``.

    Args:
        name: what the user called it.
        train: shape (examples, tokens of the longest text).
        train_labels: shape (examples,), class numbers from 0.
        test: as ``train``.
        test_labels: as ``train_labels``.
        classes: names of the classes, in the order of their numbers.
        noisy_labels: how many train labels were replaced by another class.
    """

    name: str
    train: Numbers
    train_labels: Labels
    test: Numbers
    test_labels: Labels
    classes: tuple[str, ...]
    noisy_labels: int = 0

    @property
    def shape(self) -> tuple[int]:
        """Tokens of the longest text."""
        return (int(self.train.shape[1]),)

    def normalised_as(self, other: Tokens) -> Tokens:
        """Itself: tokens are not normalised."""
        return self


def tokens(name: str, train: Split, test: Split, others: list[str], tokenize: Tokenizer) -> Tokens:
    """Tokenise both splits."""
    for split in (train, test):
        if not len(split.labels):
            raise split.bad("is empty; choose another, or download it again")
    names = classes.check(train, test, others)
    found = [tokenize(texts_of(split)) for split in (train, test)]
    longest = max(len(text) for texts in found for text in texts)
    filled = [_filled(texts, longest) for texts in found]
    return Tokens(name, filled[0], train.labels, filled[1], test.labels, names)


def texts_of(split: Split) -> list[str]:
    """The texts of a split."""
    assert split.texts is not None
    found = []
    for row, text in enumerate(split.texts()):
        if text is None or not text.strip():
            raise split.bad_row(row, split.image, "has no text; add it, or drop the row")
        found.append(text)
    return found


def _filled(texts: Sequence[Sequence[int]], longest: int) -> Numbers:
    filled = np.full((len(texts), longest), END, np.int32)
    for row, text in zip(filled, texts, strict=True):
        row[: len(text)] = text
    return filled
