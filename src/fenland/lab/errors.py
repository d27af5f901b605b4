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


def one_of(allowed: Iterable[str]) -> str:
    """The allowed values as a phrase."""
    return "choose one of " + ", ".join(allowed)
