"""Which vector do we climb along?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fenland.algebra import Vector
from fenland.rules.context import At

State = dict[str, Vector]  # what a source keeps between steps, by name: vectors over all parameters


@dataclass(frozen=True)
class Source(ABC):
    """The ascent vector a as a function of the clean gradient g and kept state.

    Attributes:
        keeps: names of the vectors that live between steps (one parameter-sized buffer each).
        needs_gradient: False means that a is known before any pass: one gradient evaluation a step, at w + e; then g is
            an empty list, and no combine that reads g can be used.
        reads_base: names of the base's own vectors, of which the first that it has comes as state["base"]; a step on
            which the base has none yet does not ascend.
        per_sample: the source chooses samples; the closure returns their losses (`first`, `ahead`, `second`).
        needs_whole: whole tensors must be at hand, so that sharded parameters are refused.
    """

    keeps: ClassVar[tuple[str, ...]] = ()
    needs_gradient: ClassVar[bool] = True
    reads_base: ClassVar[tuple[str, ...]] = ()
    per_sample: ClassVar[bool] = False
    needs_whole: ClassVar[bool] = False

    def first(self, losses: Tensor) -> Tensor | None:
        """Indices of the samples whose mean loss gives g, from the losses (B,) at w; None for all."""
        return None

    def ahead(self, losses: Tensor) -> Tensor | None:
        """Indices of the samples of pass 2 where the losses (B,) at w decide them, else None."""
        return None

    def second(self, losses: Tensor, there: Tensor) -> Tensor | None:
        """Indices of the samples whose mean loss gives h, from the losses (B,) at w and at w + e; None for all."""
        return None

    @property
    def inner(self) -> int:
        """Gradient evaluations of the ascent."""
        return 1

    @property
    def share(self) -> float:
        """Length of the first ascent step, in radii."""
        return 1.0

    def advance(self, e: Vector, unit: Vector, at: At) -> Vector:
        """The perturbation after one more inner step, where `inner` > 1.

        Args:
            e: the perturbation so far, in units of the radius (e / rho, group by group).
            unit: the steepest perturbation of radius 1 for the gradient at w + e.
            at: the algebra that they live in.
        """
        raise NotImplementedError(f"{type(self).__name__} takes one step")

    def start(self, g: Vector) -> State:
        """The state of parameters that are met for the first time, g being their gradient."""
        return {}

    @abstractmethod
    def vector(self, g: Vector, state: State, at: At) -> Vector:
        """The vector to climb along, same shapes as g.

        New values of kept vectors are put into `state` as new tensors: the old ones serve if the step is given up, and
        are never returned (w + e may be written into what is).
        """


@dataclass(frozen=True)
class Gradient(Source):
    """a = g, the mini-batch gradient at w. Source: Foret et al. 2021, arXiv 2010.01412."""

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        return g
