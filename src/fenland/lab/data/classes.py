"""Classes of a train and a test split: their names and numbers, which must leave nothing open."""

from __future__ import annotations

import numpy as np

from fenland.lab.data.images import Labels
from fenland.lab.data.source import Split, some
from fenland.lab.errors import BadInput


def check(train: Split, test: Split, others: list[str]) -> tuple[str, ...]:
    """The names of the classes, after a check that both splits mean the same by every number.

    Without names the classes are 0 to K - 1, and each of them must occur in the train split.
    """
    _check_names(train, test)
    if (test.labels < 0).all():
        cure = f"choose another one: --test-split {' or '.join(others)}" if others else "test on a split with labels"
        raise test.bad(f"has hidden labels ({some(np.unique(test.labels))}); {cure}")
    for split in (train, test):
        _check_none_hidden(split)
    names = train.names or test.names
    _check_several(train, names)
    names = names if names is not None else _numbered(train)
    for split in (train, test):
        _check_range(split, names)
    return names


def _check_several(train: Split, names: tuple[str, ...] | None) -> None:
    """Refuse one class, whatever its number is: that alone would leave nothing to learn."""
    if len(np.unique(train.labels)) < 2:
        number = int(train.labels[0])
        only = names[number] if names is not None and number < len(names) else number
        raise train.bad(f"has one class only ({only}); classification needs two")


def _check_none_hidden(split: Split) -> None:
    hidden = np.flatnonzero(split.labels < 0)
    if len(hidden):
        row = int(hidden[0])
        count = f"{len(hidden)} of {len(split.labels)} rows have none"
        raise _wrong(split, row, f"{split.labels[row]} is no class ({count}); label or drop them")


def _check_names(train: Split, test: Split) -> None:
    if train.names is None or test.names is None or train.names == test.names:
        return
    ours, theirs = train.names, test.names
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    shown = [names[first] if first < len(names) else "nothing" for names in (ours, theirs)]
    cure = "give both splits the same names in the same order"
    raise test.bad(f"has other class names: {first} is {shown[1]}, in {train.name} it is {shown[0]}; {cure}")


def _numbered(train: Split) -> tuple[str, ...]:
    """Names for classes that have none: their numbers."""
    found = np.unique(train.labels)
    if found[0] == 1 and len(found) == found[-1]:
        raise _wrong(train, 0, f"its classes are numbered 1 to {found[-1]}; subtract 1, they count from 0")
    wanted = np.arange(len(found))
    if (found != wanted).any():
        row = int(np.flatnonzero(train.labels == found[found != wanted][0])[0])
        cure = f"is not one of {len(found)} classes counted from 0; the labels are {some(found)}: number them anew"
        raise _wrong(train, row, f"{train.labels[row]} {cure}")
    return tuple(str(number) for number in found)


def _check_range(split: Split, names: tuple[str, ...]) -> None:
    wrong = np.flatnonzero(split.labels >= len(names))
    if len(wrong):
        row = int(wrong[0])
        count = f" ({len(wrong)} rows are outside)" if len(wrong) > 1 else ""
        raise _wrong(
            split, row, f"{split.labels[row]} is no class number from 0 to {len(names) - 1}{count}; correct it"
        )


def _wrong(split: Split, row: int, problem: str) -> BadInput:
    return split.bad_row(row, split.label, problem)


def counts(labels: Labels) -> dict[int, int]:
    """How many rows each label has."""
    found, number = np.unique(labels, return_counts=True)
    return dict(zip(found.tolist(), number.tolist(), strict=True))
