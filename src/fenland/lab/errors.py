"""The one error that a user can cure: an argument, its value, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable


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


def one_of(allowed: Iterable[str]) -> str:
    """The allowed values as a phrase."""
    return "choose one of " + ", ".join(allowed)
