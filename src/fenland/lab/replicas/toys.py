"""Functions of one or two weights that a paper's argument is made on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fenland.lab.replicas.problems import Coordinates


@dataclass(frozen=True)
class Neuron(Coordinates):
    """L(x, y) = sqrt(1 + (x*y)^2) - 1, a linear network of one neuron: every (0, y) is a minimum, of curvature y^2.

    Source: Dai, Ahn, Sra 2023, arXiv 2305.15287.
    """

    def formula(self, xs: list[Tensor]) -> Tensor:
        return (1 + (xs[0] * xs[1]).square()).sqrt() - 1

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        x, y = xs
        slope = x * y / (1 + (x * y).square()).sqrt()
        return [y * slope, x * slope]


@dataclass(frozen=True)
class Wave(Coordinates):
    """L(w) = 1 - cos(w): minima at the even multiples of pi, maxima at the odd ones."""

    n: ClassVar[int] = 1

    def formula(self, xs: list[Tensor]) -> Tensor:
        return 1 - xs[0].cos()

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        return [xs[0].sin()]


@dataclass(frozen=True)
class UnequalWells(Coordinates):
    """L(w) = w^4/4 - (a + b)*w^3/3 + a*b*w^2/2, of slope w*(w - b)*(w - a): minima at 0 and a, a maximum at b.

    Attributes:
        b: of the maximum.
        a: of the other minimum; narrow where b lies near it.
    """

    n: ClassVar[int] = 1
    b: float = 3.0
    a: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.b < self.a:
            raise ValueError(f"b = {self.b!r}, a = {self.a!r}: must be 0 < b < a")

    def formula(self, xs: list[Tensor]) -> Tensor:
        (x,) = xs
        return x * x * (x * x / 4 - (self.a + self.b) * x / 3 + self.a * self.b / 2)

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        (x,) = xs
        return [x * (x - self.b) * (x - self.a)]


@dataclass(frozen=True)
class SquareNeuron(Coordinates):
    """L(u, v) = E[(v*(u*x)^2 - y)^2] / 2 for inputs of E[x^4] = moment and targets y = x^2: two layers, one neuron.

    So L = moment * (v*u^2 - 1)^2 / 2: minima on v*u^2 = 1, and u = 0 is a line of critical points, of Hessian diag(-2*
    moment*v, 0): saddles for v > 0. Source of the network: Kim et al., arXiv 2301.06308, after Ziyin et al.; its data
    are not known here.

    Attributes:
        moment: E[x^4] of the inputs; 3 for normal ones.
    """

    moment: float = 3.0

    def formula(self, xs: list[Tensor]) -> Tensor:
        u, v = xs
        return self.moment * (v * u * u - 1).square() / 2

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        u, v = xs
        off = self.moment * (v * u * u - 1)
        return [2 * off * u * v, off * u * u]


def spread(low: float, high: float, count: int) -> Tensor:
    """The midpoints of `count` equal parts of the interval from `low` to `high`: float64, shape (count,)."""
    return low + (torch.arange(count, dtype=torch.float64) + 0.5) / count * (high - low)
