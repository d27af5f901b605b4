"""On which steps does the ascent run? On the others the base gets the clean gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fenland.algebra import Scalar


@dataclass(frozen=True)
class When(ABC):
    """A decision a step, the same on all ranks.

    Attributes:
        looks_at_gradient: the decision needs ||g||, which costs one host synchronisation on an accelerator.
    """

    looks_at_gradient: ClassVar[bool] = False

    @abstractmethod
    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        """Whether step number `step` (from 0) ascends, ||g|| being `grad_norm`.

        `memory` is the rule's own between steps and is saved with the optimizer.
        """


@dataclass(frozen=True)
class Always(When):
    """Every step ascends: two gradient evaluations a step."""

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        return True
