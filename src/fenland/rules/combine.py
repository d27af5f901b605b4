"""What does the base get from g and h? d = alpha * g + beta * h, with scalars from ||g||, ||h|| and <g, h>.

g is the gradient at w, h the gradient at the ascent point w + e. A combine is a pure function of the two, so it runs
unchanged on sharded tensors and on stacked replicas, and the engine forms d in one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fenland.algebra import Lazy, Leaf


@dataclass(frozen=True)
class Combine(ABC):
    """d from g and h, as an equation.

    Attributes:
        reads: what beside h enters d: "g" for the vector g (one more parameter-sized buffer during pass 2), "norms" for
            ||g|| or ||h||. Declaring less than is used raises an error at the step; declaring more costs memory.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"g", "norms"})

    @property
    def keeps_g(self) -> bool:
        """Whether g is needed after the ascent."""
        return "g" in self.reads

    @abstractmethod
    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        """alpha * g + beta * h, not formed; `g.norm`, `h.norm` and `g.dot(h)` are scalars."""


@dataclass(frozen=True)
class AtAscentPoint(Combine):
    """d = h: SAM. Source: Foret et al. 2021, arXiv 2010.01412, eq. (3) (its second-order term dropped)."""

    reads: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        return h
