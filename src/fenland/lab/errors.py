"""The one error that a user can cure: an argument, its value, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(ValueError):
    """A wrong argument. Its text is one line: the argument, the value it got, and the cure.

    Args:
        argument: name as the user wrote it, without leading dashes.
        value: what it was set to.
        cure: what is allowed, or what to do.
    """

    def __init__(self, argument: str, value: object, cure: str) -> None:
        # All three go to ValueError, so that the error survives pickling on its way out of a worker process.
        super().__init__(argument, value, cure)
        self.argument = argument
        self.value = value
        self.cure = cure

    def __str__(self) -> str:
        shown = " ".join(str(self.value).split())
        return f"{self.argument}={shown}: {' '.join(self.cure.split())}"


def in_a_line(error: BaseException) -> str:
    """What went wrong, for a list of failures: a user's mistake as it is worded, anything else after its kind."""
    line = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
    return " ".join(line.split())


def one_of(allowed: Iterable[str], given: str = "") -> str:
    """The allowed values as a phrase; for a value that was given, with those that it may be a misspelling of."""
    names = list(allowed)
    return f"choose one of {', '.join(names)}{meant(given, names)}"


def meant(given: str, allowed: Iterable[str]) -> str:
    """The end of a phrase that suggests at most two allowed values; empty where none is like the one that was given."""
    small = {name.lower(): name for name in allowed}
    word = given.lower()
    near = [small[each] for each in ([word] if word in small else get_close_matches(word, small, n=2, cutoff=0.75))]
    return f"; perhaps you meant {' or '.join(near)}" if near else ""
