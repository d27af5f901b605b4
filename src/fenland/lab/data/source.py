"""What every source gives: splits of encoded images, or of texts, with their labels, not decoded yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fenland.lab.data.images import Labels
from fenland.lab.errors import BadInput

Encoded: TypeAlias = "bytes | Path | None"  # an image file's content, or where it lies; None where there is none


@dataclass(frozen=True)
class Split:
    """The rows of one split."""

    name: str  # what the source calls it, such as ``validation``
    argument: str  # the argument that named the source, for errors
    value: object  # what it was set to
    labels: Labels  # one class number a row, as they are stored: not checked yet
    names: tuple[str, ...] | None  # names of the classes, in the order of their numbers; None where the source has none
    label: str  # where the labels come from, for errors, such as ``column label``
    image: str  # where the images or texts come from, likewise; empty where the row is a file of its own
    encoded: Callable[[], Iterator[Encoded]]  # goes through the encoded images, from the first row on
    place: Callable[[int], tuple[object, str]]  # of a row number, the file and what in it the row is called, for errors
    # goes through the texts likewise, in place of images; None where the split holds images
    texts: Callable[[], Iterator[str | None]] | None = None

    def bad_row(self, row: int, column: str, problem: str) -> BadInput:
        """The error of one row; ``column`` names what is wrong there, or is empty."""
        file, called = self.place(row)
        where = ", ".join(part for part in (called, column) if part)
        return BadInput(self.argument, file, f"{where}: {problem}" if where else problem)

    def bad(self, problem: str) -> BadInput:
        """The error of the split as a whole."""
        return BadInput(self.argument, self.value, f"its {self.name} split {problem}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to what fits on a terminal's line."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def some(values: object, most: int = 6) -> str:
    """The first few of many values as a phrase."""
    listed = [str(value) for value in values]  # type: ignore[attr-defined]
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "") or "(none)"
