r"""Which norm bounds the perturbation, and so which one is steepest: e\* = argmax <a, e> over ||e|| <= rho.

A ball holds no radius: `group["rho"]` is the only truth. It returns the unit-radius perturbation as a multiple of a
vector, e = rho * c * u, so that the engine forms w + e in one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fenland.algebra import Lazy, Scalar, inverse
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames


@dataclass(frozen=True)
class Ball(ABC):
    """A norm on perturbations. A new ball is its `steepest`; the rest has defaults.

    Attributes:
        is_norm: whether ||e|| <= rho bounds a norm; not where the length follows that of a.
    """

    is_norm: ClassVar[bool] = True

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

    @property
    def geometry(self) -> Geometry | None:
        """How to go and come back where parameters live on manifolds; None where w + e is the ascent point."""
        return None

    def dual_norm(self, a: Lazy, s: Context) -> Scalar:
        """||a||* = max <a, e> over ||e|| <= 1 (unit: loss per unit of the radius)."""
        return a.dot(self.steepest(a, s))


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
class L2(Ball):
    r"""e = rho * a / ||a||_2, one norm over all tensors of all groups with rho > 0.

    The ball of SAM. Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412, eq. (2) with p = 2.
    """

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        return a * inverse(a.norm)

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        return e.norm


@dataclass(frozen=True)
class Unnormalized(Ball):
    r"""e = rho * a: the radius shrinks with the gradient (USAM). rho has the unit w per gradient.

    Source: Andriushchenko and Flammarion 2022, arXiv 2206.06232; it is the ascent that the SSAM paper calls SAM
    (Tan et al., JMLR 2025, arXiv 2401.07250; authors' usam.py). Not a norm ball: |e| = rho * ||a||.
    """

    is_norm: ClassVar[bool] = False

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        return Lazy(a.terms, a.norm)


@dataclass(frozen=True)
class Clipped(Ball):
    r"""e = rho * a * min(1, 1 / ||a||): USAM where ||a|| < 1, SAM where it is larger.

    What the code of Andriushchenko and Flammarion 2022 (arXiv 2206.06232, `--sam_no_grad_norm`) computes: its step
    rho * a is afterwards projected onto the rho-ball. Not a norm ball: |e| = rho * min(||a||, 1).
    """

    is_norm: ClassVar[bool] = False

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        return Lazy((a * a.norm.clamp_min(1.0).reciprocal()).terms, a.norm.clamp_max(1.0))
