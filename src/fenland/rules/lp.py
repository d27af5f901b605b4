"""Balls of the p-norms: the dual direction, and the other thing that is called the infinity norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fenland.algebra import Lazy, Scalar, inverse
from fenland.rules.choices import Ball
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames


@dataclass(frozen=True)
class Lp(Ball):
    r"""e = rho * sign(a) |a|^(q-1) / (sum |a|^q)^(1/p), 1/p + 1/q = 1: the maximiser of <a, e> over ||e||_p <= rho.

    <a, e> = rho * ||a||_q. p = 2 is SAM; p = inf gives e = rho * sign(a); p = 1 moves the largest |a_i| only (ties
    share rho). Source: Foret et al. 2021, arXiv 2010.01412, eq. (2).
    rho is a p-norm: at p = inf an L2 ball of rho in d dimensions corresponds to rho / sqrt(d).

    Attributes:
        p: the norm's exponent, from 1 to inf.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or not isinstance(self.p, (int, float)):
            raise TypeError(f"p = {self.p!r}: must be a number in [1, inf]")
        if not self.p >= 1:
            raise ValueError(f"p = {self.p!r}: must lie in [1, inf]; below 1 it is no norm")

    def check(self, params: ParameterNames) -> None:
        params.require_real(f"ball = {self}")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        x, V = a.form(), a.V
        largest = V.absmax(x.tensors)
        if math.isinf(self.p):
            return x.like(V.map(torch.sign, x.tensors))
        unit = V.scale(inverse(largest), x.tensors)  # |unit| <= 1, so no power of it overflows
        if self.p == 1:
            top = V.map(lambda u: torch.where(u.abs() >= 1 - 4 * torch.finfo(u.dtype).eps, u.sign(), 0.0), unit)
            return x.like(top) * inverse(V.total(V.map(torch.abs, top)))
        q = self.p / (self.p - 1)
        powers = V.map(lambda u: u.abs().pow(q), unit)
        direction = V.map(lambda u: u.sign() * u.abs().pow(q - 1), unit)
        return x.like(direction) * inverse(V.total(powers).pow(1 / self.p))

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        V, x = e.V, e.tensors
        largest = V.absmax(x)
        if math.isinf(self.p):
            return largest
        unit = V.scale(inverse(largest), x)
        return largest * V.total(V.map(self._power, unit)).pow(1 / self.p)

    def _power(self, x: Tensor) -> Tensor:
        return x.abs().pow(self.p)


@dataclass(frozen=True)
class InfNorm(Ball):
    r"""e = rho * a / ||a||_inf: the Euclidean direction, stretched until it touches the box of half-width rho.

    It is not the maximiser over that box (`Lp(p=inf)` is). This is what "p = inf" becomes where only the norm in the
    denominator is exchanged, in code that goes back to davda54/sam. Its L2 length is rho * ||a||_2 / ||a||_inf.
    Source of the ball: Foret et al. 2021, arXiv 2010.01412; this reading of it is the code's.
    """

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        over = inverse(a.V.absmax(a.tensors))
        return Lazy((a * over).terms, over * a.norm)
