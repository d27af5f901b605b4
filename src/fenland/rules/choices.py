"""The four questions that a rule answers: ball, source, combine and when. SAM's answers are in `methods/ascend.py`.

Which norm bounds the perturbation, and so which e is steepest: argmax <a, e> over ||e|| <= rho? Which vector a is
climbed along? What does the base get from g, the gradient at w, and h, the gradient at w + e? On which steps?
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fenland.algebra import Lazy, Leaf, Scalar
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames


class Geometry(ABC):
    """What a manifold needs for a step, parameter by parameter."""

    @abstractmethod
    def tangent(self, g: Tensor, w: Tensor, param: Tensor) -> Tensor:
        """The part of g that is a direction at w; g itself on flat parameters."""

    @abstractmethod
    def retract(self, w: Tensor, e: Tensor, param: Tensor) -> Tensor:
        """The ascent point: the retraction of e at w."""

    @abstractmethod
    def transport(self, h: Tensor, there: Tensor, w: Tensor, param: Tensor) -> Tensor:
        """The gradient h at `there` brought to w."""


@dataclass(frozen=True)
class Ball(ABC):
    """A norm on perturbations. A new ball is its `steepest`; the rest has defaults.

    It holds no radius: `group["rho"]` is the only truth.

    Attributes:
        is_norm: whether ||e|| <= rho bounds a norm; not where the length follows that of a.
        geometry: how to go and come back where parameters live on manifolds; None where w + e is the ascent point.
    """

    is_norm: ClassVar[bool] = True
    geometry: ClassVar[Geometry | None] = None

    @abstractmethod
    def steepest(self, a: Lazy, s: Context) -> Lazy:
        """argmax <a, e> over ||e|| <= 1, as a multiple of a or of new tensors (`a.form().like(...)`).

        A result whose ||e|| in this norm is not 1 says so in its `length`.

        Args:
            a: the vector that is climbed along.
            s: the step: `s.weights(a)`, `s.names(a)`, `s.modules(a)`, `s.count`, `s.rho`.
        """

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        """||e|| in this ball's norm (unit: that of w): equals rho for e = rho * steepest(a)."""
        raise NotImplementedError(f"{type(self).__name__} is not a norm ball")

    def check(self, params: ParameterNames) -> None:  # noqa: B027 - most have nothing to refuse
        """Raise a ValueError where this ball cannot work with these parameters (no names, sharded tensors)."""


@dataclass(frozen=True)
class Source(ABC):
    """The ascent vector a, from the clean gradient g and what was kept between steps.

    Attributes:
        keeps: names of the vectors that it keeps (`s.put`), one parameter-sized buffer each.
    """

    keeps: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def vector(self, g: Leaf, s: Context) -> Lazy:
        """The vector to climb along; `s.get` and `s.put` reach what is kept.

        It is asked on steps that ascend: an average under `when=EveryK(5)` is one of every fifth gradient.
        """

    def check(self, params: ParameterNames) -> None:  # noqa: B027 - most have nothing to refuse
        """Raise a ValueError where this source cannot work with these parameters (sharded tensors)."""


@dataclass(frozen=True)
class Combine(ABC):
    """d = alpha * g + beta * h as an equation, with scalars from ||g||, ||h|| and <g, h>.

    A pure function: it runs unchanged on sharded tensors and on stacked replicas, and the engine forms d in one pass.

    Attributes:
        reads: what beside h enters d: "g" for the vector g (one more parameter-sized buffer during pass 2), "norms" for
            ||g|| or ||h||. Declaring less than is used raises an error at the step; declaring more costs memory.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"g", "norms"})

    @abstractmethod
    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        """alpha * g + beta * h, not formed; `g.norm`, `h.norm` and `g.dot(h)` are scalars."""


@dataclass(frozen=True)
class When(ABC):
    """A decision a step; without an ascent the base gets the clean gradient.

    It is a pure function of the step, of the all-reduced ||g|| and of saved numbers, so all ranks agree.
    """

    @property
    def looks_at_gradient(self) -> bool:
        """Whether the decision needs ||g||, which costs one host synchronisation on an accelerator."""
        return False

    @property
    def starts(self) -> dict[str, float]:
        """The rule's numbers between steps with their first values: a checkpoint loads only what has its place."""
        return {}

    @abstractmethod
    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        """Whether step number `step` (from 0) ascends, ||g|| being `grad_norm`.

        `memory` is the rule's own between steps and is saved with the optimizer.
        """
