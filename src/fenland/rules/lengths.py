"""Balls whose radius follows something else than rho alone: ||a||, a loss budget, or the full-data gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from fenland.algebra import Lazy, Scalar, inverse
from fenland.arguments import check_number
from fenland.rules.choices import Ball
from fenland.rules.context import Context


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


@dataclass(frozen=True)
class LossBudget(Ball):
    r"""e = min(sigma / ||a||, rho) * a / ||a||: to first order the loss rises by sigma, with rho as the largest radius.

    Source: Wang, Liu, Xie, Gao 2026, arXiv 2605.10183 (LE-SAM). The radius goes as 1 / ||a||, the reverse of USAM: near
    a minimum only rho bounds it. With several radii the largest is the bound.

    Attributes:
        sigma: the loss budget (unit: loss), a number or a callable of the step; the authors let it fall to 0 by a
            cosine over the last fifth of training. 0.1: their class default; 0.35 for CIFAR-100 in their README.
    """

    is_norm: ClassVar[bool] = False
    sigma: float | Callable[[int], float] = 0.1

    def __post_init__(self) -> None:
        if not callable(self.sigma):
            check_number("sigma", self.sigma, low=0.0)

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        sigma = self.sigma(s.count) if callable(self.sigma) else self.sigma
        check_number(f"sigma({s.count})", sigma, low=0.0)
        over = inverse(a.norm)
        if not s.rho > 0:
            return a * over
        share = (over * (sigma / s.rho)).clamp_max(1.0)
        return Lazy((a * (over * share)).terms, share)


@dataclass(frozen=True)
class FullNorm(Ball):
    r"""e = rho * a / ||grad f(w)||, the norm of the full-data gradient: the noise of the batch is not normalised away.

    Source: Compagnoni et al. 2023, arXiv 2301.08203 (DNSAM), a device of theory: where noise dominates, ||e|| is much
    larger than rho. Not a norm ball.

    Attributes:
        full_norm: called without arguments at w on every step that ascends; returns ||grad f(w)||_2 (a number or a
            0-d tensor). It must not write to `p.grad`, which raises a RuntimeError: use `torch.autograd.grad`.
            Gradients are enabled inside.
    """

    is_norm: ClassVar[bool] = False
    full_norm: Callable[[], Scalar | float]

    def __post_init__(self) -> None:
        if not callable(self.full_norm):
            raise TypeError(
                f"full_norm = {self.full_norm!r}: must be a callable: () -> norm of the full-data gradient at w"
            )

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        before = _versions(a)
        with torch.enable_grad():
            full = s.norm_of(self.full_norm)
        if _versions(a) != before:
            raise RuntimeError(
                "full_norm wrote to p.grad, so that the ascent would climb along the batch's gradient and its own: "
                "let it use torch.autograd.grad instead of backward"
            )
        own = a.norm
        over = inverse(torch.as_tensor(full, dtype=own.dtype, device=own.device).detach()).expand_as(own)
        return Lazy((a * over).terms, over * own)


def _versions(a: Lazy) -> list[int]:
    """How often the memory of a's gradients was written to."""
    return [x._version for _, leaf in a.terms for x in leaf.raw or ()]
