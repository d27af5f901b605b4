"""Which vector do we climb along?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fenland.algebra import Algebra, Vector

State = dict[str, Vector]  # what a source keeps between steps, by name: vectors over all parameters


@dataclass(frozen=True)
class Source(ABC):
    """The ascent vector a as a function of the clean gradient g and kept state.

    Attributes:
        keeps: names of the vectors that live between steps (one parameter-sized buffer each).
    """

    keeps: ClassVar[tuple[str, ...]] = ()

    def start(self, g: Vector) -> State:
        """The state of parameters that are met for the first time, g being their gradient."""
        return {}

    @abstractmethod
    def vector(self, g: Vector, state: State, V: Algebra) -> Vector:
        """The vector to climb along, same shapes as g; `state` may be updated in place."""


@dataclass(frozen=True)
class Gradient(Source):
    """a = g, the mini-batch gradient at w. Source: Foret et al. 2021, arXiv 2010.01412."""

    def vector(self, g: Vector, state: State, V: Algebra) -> Vector:
        return g
