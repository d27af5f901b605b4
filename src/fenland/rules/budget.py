"""Balls whose radius follows something else than rho alone: a loss budget, or the full-data gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fenland.algebra import Scalar, Vector
from fenland.arguments import check_number
from fenland.rules.ball import AlongGradient, Steepest
from fenland.rules.context import At


@dataclass(frozen=True)
class LossBudget(AlongGradient):
    r"""e = min(sigma / ||a||, rho) * a / ||a||: to first order the loss rises by sigma, with rho as the largest radius.

    Source: Wang, Liu, Xie, Gao 2026, arXiv 2605.10183 (LE-SAM). The radius goes as 1 / ||a||, the reverse of USAM: near
    a minimum only rho bounds it. With several radii the largest is the bound.

    Attributes:
        sigma: the loss budget (unit: loss), a number or a callable of the step; the authors let it fall to 0 by a
            cosine over the last fifth of training. 0.1: their class default; 0.35 for CIFAR-100 in their README.
    """

    sigma: float | Callable[[int], float] = 0.1

    def __post_init__(self) -> None:
        if not callable(self.sigma):
            check_number("sigma", self.sigma, low=0.0)

    @property
    def scale_free(self) -> bool:
        return False

    def steepest(self, a: Vector, w: Vector, at: At) -> Steepest:
        sigma = self.sigma(at.step) if callable(self.sigma) else self.sigma
        check_number(f"sigma({at.step})", sigma, low=0.0)
        inverse = at.V.inverse(at.V.norm(a))
        share = (inverse * (sigma / at.rho)).clamp_max(1.0) if at.rho > 0 else torch.ones_like(inverse)
        return Steepest(a, inverse * share, share)


@dataclass(frozen=True)
class FullNorm(AlongGradient):
    r"""e = rho * a / ||grad f(w)||, the norm of the full-data gradient: the noise of the batch is not normalised away.

    Source: Compagnoni et al. 2023, arXiv 2301.08203 (DNSAM), a device of theory: where noise dominates, ||e|| is much
    larger than rho. Not a norm ball.

    Attributes:
        full_norm: called without arguments at w on every step that ascends; returns ||grad f(w)||_2 (a number or a
            0-d tensor). It must not write to `p.grad`: use `torch.autograd.grad`. Gradients are enabled inside.
    """

    full_norm: Callable[[], Scalar | float]

    def __post_init__(self) -> None:
        if not callable(self.full_norm):
            raise TypeError(
                f"full_norm = {self.full_norm!r}: must be a callable: () -> norm of the full-data gradient at w"
            )

    @property
    def scale_free(self) -> bool:
        return False

    def steepest(self, a: Vector, w: Vector, at: At) -> Steepest:
        with torch.enable_grad():
            full = self.full_norm()
        own = at.V.norm(a)
        inverse = at.V.inverse(torch.as_tensor(full, dtype=own.dtype, device=own.device).detach())
        return Steepest(a, inverse.expand_as(own), inverse * own)
