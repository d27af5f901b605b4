r"""Which norm bounds the perturbation, and so which one is steepest: e\* = argmax <a, e> over ||e|| <= rho.

A ball holds no radius: `group["rho"]` is the only truth. It returns the unit-radius perturbation as direction and
scale, e = rho * scale * direction, so that the engine forms w + e in one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fenland.algebra import Scalar, Vector
from fenland.rules.context import At


@dataclass(frozen=True)
class Steepest:
    """The steepest perturbation of unit radius, e / rho = scale * direction.

    Attributes:
        direction: one tensor a parameter. It may be `a` itself (then nothing was copied) or new tensors.
        scale: a scalar; with it ||e|| = rho.
        length: ||e|| / rho, where that is not 1 (masks after the normaliser, balls that are no norm).
    """

    direction: Vector
    scale: Scalar
    length: Scalar | None = None


@dataclass(frozen=True)
class Ball(ABC):
    """A norm on perturbations. Its properties say what the engine must know of it."""

    @property
    def scale_free(self) -> bool:
        """Whether multiplying `a` by a positive number leaves e: then gradients may still carry a loss scale."""
        return True

    @property
    def along_a(self) -> bool:
        """Whether e is a multiple of a."""
        return False

    @property
    def reads_w(self) -> bool:
        """Whether `steepest` looks at the weights; else it gets an empty list, for a view of each costs time."""
        return True

    @property
    def selects(self) -> bool:
        """Whether only the parameters that `covers` names are perturbed, the norm running over those."""
        return False

    @property
    def curved(self) -> bool:
        """Whether the ascent is a retraction (`arrive`) and the way back a transport (`carry`), not + and -."""
        return False

    @property
    def needs_names(self) -> bool:
        """Whether `at.names` and `at.modules` are read (from model= or a base built on named_parameters())."""
        return self.selects

    @property
    def needs_whole(self) -> bool:
        """Whether a whole tensor must be at hand, so that sharded parameters are refused."""
        return False

    @abstractmethod
    def steepest(self, a: Vector, w: Vector, at: At) -> Steepest:
        """The direction and scale of argmax <a, e> over ||e|| <= 1.

        Args:
            a: the vector that is climbed along, one tensor a parameter.
            w: the weights, same shapes.
            at: the algebra that they live in, and what else is known.
        """

    def covers(self, name: str, param: Tensor, module: nn.Module | None) -> bool:
        """Whether this parameter is perturbed; asked once each, where `selects`."""
        return True

    def tangent(self, g: Tensor, w: Tensor, param: Tensor) -> Tensor:
        """The part of g that is a direction at w, where `curved`; g itself on flat parameters."""
        return g

    def arrive(self, w: Tensor, e: Tensor, param: Tensor) -> Tensor:
        """The ascent point of one parameter, where `curved`: the retraction of e at w."""
        return w + e

    def carry(self, h: Tensor, there: Tensor, w: Tensor, param: Tensor) -> Tensor:
        """The gradient h at `there` brought to w, where `curved`: its transport."""
        return h

    def norm(self, e: Vector, a: Vector, w: Vector, at: At) -> Scalar:
        """||e|| in this ball's norm (unit: that of w): equals rho for e = rho * steepest(a)."""
        raise NotImplementedError(f"{type(self).__name__} is not a norm ball")

    def dual_norm(self, a: Vector, w: Vector, at: At) -> Scalar:
        """||a||* = max <a, e> over ||e|| <= 1 (unit: loss per unit of the radius)."""
        best = self.steepest(a, w, at)
        return at.V.dot(a, best.direction) * best.scale


@dataclass(frozen=True)
class AlongGradient(Ball):
    """A ball whose perturbation is a multiple of a, whatever the weights: nothing but a length is computed."""

    @property
    def reads_w(self) -> bool:
        return False

    @property
    def along_a(self) -> bool:
        return True


@dataclass(frozen=True)
class L2(AlongGradient):
    r"""e = rho * a / ||a||_2, one norm over all tensors of all groups with rho > 0.

    The ball of SAM. Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412, eq. (2) with p = 2.
    """

    def steepest(self, a: Vector, w: Vector, at: At) -> Steepest:
        return Steepest(a, at.V.inverse(at.V.norm(a)))

    def norm(self, e: Vector, a: Vector, w: Vector, at: At) -> Scalar:
        return at.V.norm(e)


@dataclass(frozen=True)
class Unnormalized(AlongGradient):
    r"""e = rho * a: the radius shrinks with the gradient (USAM). rho has the unit w per gradient.

    Source: Andriushchenko and Flammarion 2022, arXiv 2206.06232; it is the ascent that the SSAM paper calls SAM
    (Tan et al., JMLR 2025, arXiv 2401.07250; authors' usam.py). Not a norm ball: |e| = rho * ||a||.
    """

    @property
    def scale_free(self) -> bool:
        return False

    def steepest(self, a: Vector, w: Vector, at: At) -> Steepest:
        length = at.V.norm(a)
        return Steepest(a, torch.ones_like(length), length)


@dataclass(frozen=True)
class Clipped(AlongGradient):
    r"""e = rho * a * min(1, 1 / ||a||): USAM where ||a|| < 1, SAM where it is larger.

    What the code of Andriushchenko and Flammarion 2022 (arXiv 2206.06232, `--sam_no_grad_norm`) computes: its step
    rho * a is afterwards projected onto the rho-ball. Not a norm ball: |e| = rho * min(||a||, 1).
    """

    @property
    def scale_free(self) -> bool:
        return False

    def steepest(self, a: Vector, w: Vector, at: At) -> Steepest:
        length = at.V.norm(a)
        return Steepest(a, length.clamp_min(1.0).reciprocal(), length.clamp_max(1.0))
