"""Which split is trained on and which is tested on, from the names that a source gives them."""

from __future__ import annotations

from collections.abc import Iterable

from fenland.lab.data.source import some
from fenland.lab.errors import BadInput

_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_HELD_OUT = ("validation", "valid", "val", "dev")
_SEPARATORS = "-_."


def base(label: str) -> str | None:
    """The split that a name stands for: ``train`` of ``train``, ``Train`` and ``train_small``; None of ``extra``."""
    text = label.lower()
    for known in (*_TRAIN, *_TEST, *_HELD_OUT):
        rest = text.removeprefix(known)
        if text.startswith(known) and (not rest or rest[0] in _SEPARATORS or rest.isdigit()):
            return known
    return None


def choose(found: Iterable[str], wanted: str, argument: str, value: object) -> tuple[str, str]:
    """The names of the train split and of the one that stands for the test split.

    Args:
        found: names of the splits.
        wanted: ``--test-split``: one of them; empty takes ``test``, else the one validation split.
        argument: that named the source, for errors.
        value: what it was set to.

    Raises:
        BadInput: there is none, or more than one, that it can be.
    """
    names = list(found)
    train = [name for name in names if base(name) in _TRAIN]
    if len(train) != 1:
        raise BadInput(argument, value, _no_train(train, names))
    others = [name for name in names if name != train[0]]
    if wanted:
        if wanted not in others:
            raise BadInput("test-split", wanted, f"{value} has the splits {some(names)}; {_one_of(others)}")
        return train[0], wanted
    for kind in (_TEST, _HELD_OUT):
        match = [name for name in others if base(name) in kind]
        if len(match) == 1:
            return train[0], match[0]
        if match:
            cure = f"has {' and '.join(match)}; choose one to test on, as in --test-split {match[0]}"
            raise BadInput(argument, value, cure)
    cure = f"has no test split, only {some(names)}; add one named test or validation"
    raise BadInput(argument, value, cure + (f", or choose: --test-split {others[0]}" if others else ""))


def _no_train(train: list[str], names: list[str]) -> str:
    if train:
        return f"has {len(train)} train splits, {' and '.join(train)}; keep one of them there"
    return f"has no train split, only {some(names)}; name one train"


def _one_of(others: list[str]) -> str:
    return f"choose one of {', '.join(others)}" if others else "none of them can be tested on"
