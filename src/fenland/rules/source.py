"""Which vector do we climb along?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fenland.algebra import Lazy, Leaf
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames


@dataclass(frozen=True)
class Source(ABC):
    """The ascent vector a, from the clean gradient g and what was kept between steps.

    Attributes:
        keeps: names of the vectors that it keeps (`s.put`), one parameter-sized buffer each.
    """

    keeps: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def vector(self, g: Leaf, s: Context) -> Lazy:
        """The vector to climb along; `s.get` and `s.put` reach what is kept."""

    def check(self, params: ParameterNames) -> None:  # noqa: B027 - most have nothing to refuse
        """Raise a ValueError where this source cannot work with these parameters (sharded tensors)."""


@dataclass(frozen=True)
class Gradient(Source):
    """a = g, the mini-batch gradient at w. Source: Foret et al. 2021, arXiv 2010.01412."""

    def vector(self, g: Leaf, s: Context) -> Lazy:
        return g
