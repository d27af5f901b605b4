"""A method: the program of one step, as a paper tells it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames
from fenland.rules.requests import Program


@dataclass(frozen=True)
class Method(ABC):
    """A generator that asks for gradients and ends with its update; what it costs is declared beside it.

    The engine runs it and never asks which method it is: with a closure, in two calls, over micro-batches and on
    replicas. `evaluations` says what the two-call form can run, `keeps` and `numbers` what a checkpoint must hold.
    """

    @abstractmethod
    def step(self, s: Context) -> Program:
        """Yield `Grad` requests, whose answers are gradients, and last an `Update` (yielded, not returned)."""

    @property
    def evaluations(self) -> int:
        """Gradient evaluations of a step that ascends."""
        return 2

    @property
    def searches(self) -> bool:
        """Whether it yields `Highest`."""
        return False

    @property
    def per_sample(self) -> bool:
        """Whether the closure returns the losses of its samples, shape (B,), and leaves backward to the engine."""
        return False

    @property
    def clean_gradient(self) -> bool:
        """Whether it asks for the gradient at w."""
        return True

    @property
    def corrects(self) -> bool:
        """Whether its update has an `after`."""
        return False

    @property
    def reads_norms(self) -> bool:
        """Whether an ascent makes it look at more than h: then d differs from rank to rank under a local ascent."""
        return True

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of the vectors that live between steps, one parameter-sized buffer each."""
        return ()

    @property
    def numbers(self) -> dict[str, float]:
        """Names of the numbers that live between steps, with their first values."""
        return {}

    @property
    def reads_dual(self) -> bool:
        """Whether it asks for the ball's dual norm of a gradient (`Grad(dual=True)`)."""
        return False

    @property
    def reads_base(self) -> tuple[str, ...]:
        """Names of the base's own vectors, of which it needs one."""
        return ()

    def check(self, params: ParameterNames) -> None:  # noqa: B027 - most have nothing to refuse
        """Raise a ValueError where this method cannot work with these parameters."""
