"""A figure before it is drawn: what it shows, in words, and how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from fenland.lab.figures.style import Canvas


@dataclass(frozen=True)
class Drawn:
    """A figure that is described but not drawn yet.

    Attributes:
        name: the name of its files.
        title: what it shows, with the unit.
        caption: how to read it.
        description: its content in words and numbers, for those who cannot see it.
        draw: a function that draws it on a canvas.
        labels: the labels of its lines, in the order of colours; a comparison's figures take those of its records.
        wide: whether it takes the page's whole width, as for panels side by side.
    """

    name: str
    title: str
    caption: str
    description: str
    draw: Callable[[Canvas], Figure]
    labels: tuple[str, ...] = ()
    wide: bool = False
