"""Analytic problems for thousands of replicas at once: value and gradient, float64, batched by hand.

Every tensor of a point w has shape (R, *shape) with R replicas. Problems in few coordinates keep one 0-d weight a
coordinate, shape (R,) in all: then a whole step is elementwise and compiles to one loop. `split=False` keeps them in
one tensor (R, n) instead, which matters for rules that look at tensors (layers) one by one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from fenland.algebra import Vector

Number: TypeAlias = "float | Tensor"  # a constant of the problem, or one a replica: shape (R,)


class Problem(ABC):
    """A function of weights with its gradient, over many replicas at once.

    The weights w are a list of tensors, one for each weight, of shape (R, *shape) with R replicas. A problem of your
    own has the members ``shapes``, ``value`` and ``gradient``.
    """

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each weight, without the replica dimension."""

    @property
    def elementwise(self) -> bool:
        """Whether a step is arithmetic of (R,) tensors only, so that compiling it pays."""
        return all(shape == () for shape in self.shapes)

    @property
    def size(self) -> int:
        """Number of coordinates n."""
        return sum(math.prod(shape) for shape in self.shapes)

    @abstractmethod
    def value(self, w: Vector) -> Tensor:
        """f(w) of each replica, shape (R,)."""

    @abstractmethod
    def gradient(self, w: Vector) -> Vector:
        """grad f(w), shapes as w's."""

    def pack(self, points: Tensor) -> Vector:
        """Points (R, n) as the weights of R replicas."""
        if points.dim() != 2 or points.shape[1] != self.size:
            raise ValueError(f"points of shape {tuple(points.shape)}: must be (R, {self.size}) for {self}")
        parts = torch.split(points.to(torch.float64), [math.prod(shape) for shape in self.shapes], 1)
        return [x.reshape(-1, *shape).contiguous() for x, shape in zip(parts, self.shapes, strict=True)]

    def unpack(self, w: Vector) -> Tensor:
        """The weights of R replicas as points (R, n)."""
        return torch.cat([x.reshape(x.shape[0], -1) for x in w], 1)


@dataclass(frozen=True)
class Coordinates(Problem):
    """A formula in n coordinates, each of shape (R,)."""

    n: ClassVar[int] = 2

    @property
    def count(self) -> int:
        """The number of coordinates."""
        return self.n

    @property
    def one_each(self) -> bool:
        """Whether every coordinate is a weight of its own."""
        return bool(getattr(self, "split", True))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((),) * self.count if self.one_each else ((self.count,),)

    @abstractmethod
    def formula(self, xs: list[Tensor]) -> Tensor:
        """f of the coordinates."""

    @abstractmethod
    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        """df/dx_i, one a coordinate."""

    def value(self, w: Vector) -> Tensor:
        return self.formula(self._apart(w))

    def gradient(self, w: Vector) -> Vector:
        slopes = self.slopes(self._apart(w))
        return slopes if self.one_each else [torch.stack(slopes, 1)]

    def _apart(self, w: Vector) -> list[Tensor]:
        return w if self.one_each else list(w[0].unbind(1))


@dataclass(frozen=True)
class Quartic(Coordinates):
    """f = x1^4/4 - x1*x2 + x2^2/2: minima at (1, 1) and (-1, -1) with f = -1/4, saddle at the origin.

    Hessian at the minima [[3, -1], [-1, 1]], eigenvalues 2 +- sqrt(2); at the origin (1 +- sqrt(5)) / 2.
    Source: Tan et al. 2025 (SSAM), arXiv 2401.07250, Fig. 2.
    """

    split: bool = True

    @property
    def minima(self) -> list[tuple[float, ...]]:
        """Where f is least."""
        return [(1.0, 1.0), (-1.0, -1.0)]

    @property
    def curvature(self) -> float:
        """Largest Hessian eigenvalue at the minima, 2 + sqrt(2) = 3.414."""
        return 2 + math.sqrt(2)

    def formula(self, xs: list[Tensor]) -> Tensor:
        x, y = xs
        return x * x * x * x / 4 - x * y + y * y / 2

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        x, y = xs
        return [x * x * x - y, y - x]


@dataclass(frozen=True)
class Quadratic(Coordinates):
    """f = sum_i l_i x_i^2 / 2, with eigenvalues l_i of either sign.

    Attributes:
        eigenvalues: numbers, or one a replica, shape (R,) (unit: loss / w^2).
        split: one weight a coordinate, or one tensor.
    """

    eigenvalues: tuple[Number, ...]
    split: bool = True

    def __post_init__(self) -> None:
        if not self.eigenvalues:
            raise ValueError("eigenvalues = (): a quadratic needs at least one")

    @property
    def count(self) -> int:
        """n."""
        return len(self.eigenvalues)

    def formula(self, xs: list[Tensor]) -> Tensor:
        terms = [x * x * c / 2 for x, c in zip(xs, self.eigenvalues, strict=True)]
        return torch.stack(terms).sum(0)

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        return [x * c for x, c in zip(xs, self.eigenvalues, strict=True)]


@dataclass(frozen=True)
class Saddle(Coordinates):
    """f = x^2 - m*y^2 + k*y^4: the origin is a saddle of eigenvalues 2 and -2m; with k > 0 minima at y^2 = m/(2k).

    Attributes:
        m: strength of the descent (unit: loss / w^2), one number or one a replica.
        k: confinement far out (loss / w^4); 0 leaves f unbounded below.
        split: one weight a coordinate, or one tensor.
    """

    m: Number = 1.0
    k: float = 0.0
    split: bool = True

    def formula(self, xs: list[Tensor]) -> Tensor:
        x, y = xs
        return x * x - self.m * y * y + self.k * (y * y) * (y * y)

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        x, y = xs
        return [2 * x, (4 * self.k * (y * y) - 2 * self.m) * y]


@dataclass(frozen=True)
class Beale(Coordinates):
    """f = (1.5 - x + x*y)^2 + (2.25 - x + x*y^2)^2 + (2.625 - x + x*y^3)^2.

    The minimum is f(3, 0.5) = 0; (0, 1) is a saddle with f = 14.203125 and Hessian eigenvalues +-27.75.
    """

    split: bool = True

    @property
    def minima(self) -> list[tuple[float, ...]]:
        """Where f is least."""
        return [(3.0, 0.5)]

    def formula(self, xs: list[Tensor]) -> Tensor:
        x, y = xs
        a, b, c = 1.5 - x + x * y, 2.25 - x + x * (y * y), 2.625 - x + x * (y * y * y)
        return a * a + b * b + c * c

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        x, y = xs
        y2, y3 = y * y, y * y * y
        a, b, c = 1.5 - x + x * y, 2.25 - x + x * y2, 2.625 - x + x * y3
        return [2 * (a * (y - 1) + b * (y2 - 1) + c * (y3 - 1)), 2 * x * (a + 2 * b * y + 3 * c * y2)]


@dataclass(frozen=True, eq=False)
class FromFunction(Problem):
    """Any scalar function of one replica's weights; gradients by `torch.func`, vectorised over replicas.

    Attributes:
        function: weights of one replica (a list of tensors of `of`) -> 0-d tensor.
        of: the shapes of its weights.
    """

    function: Callable[[Vector], Tensor]
    of: tuple[tuple[int, ...], ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.of

    @property
    def elementwise(self) -> bool:
        """No."""
        return False

    def value(self, w: Vector) -> Tensor:
        values: Tensor = torch.func.vmap(self.function)(w)
        return values

    def gradient(self, w: Vector) -> Vector:
        slopes: Vector = torch.func.vmap(torch.func.grad(self.function))(w)
        return slopes


def near(
    problem: Problem, points: list[tuple[float, ...]], tolerance: float, box: bool = False
) -> Callable[[Vector], Tensor]:
    """A goal for `run`: whether each replica lies near one of these points.

    Args:
        problem: the function.
        points: the points, with n coordinates each.
        tolerance: the largest distance (unit of w) that counts as near.
        box: measure in every coordinate instead of by the Euclidean distance.

    Returns:
        A function from weights to bool, shape (R,).

    Raises:
        ValueError: there is no point, or one has another number of coordinates.
    """
    targets = [[float(c) for c in point] for point in points]
    if not targets or any(len(point) != problem.size for point in targets):
        raise ValueError(f"points = {points}: must be non-empty, of {problem.size} coordinates each")

    def reached(w: Vector) -> Tensor:
        xs = [x for t in w for x in ([t] if t.dim() == 1 else t.reshape(t.shape[0], -1).unbind(1))]
        return reduce(torch.logical_or, [_inside(xs, point, tolerance, box) for point in targets])

    return reached


def _inside(xs: list[Tensor], point: list[float], tolerance: float, box: bool) -> Tensor:
    gaps = [x - c for x, c in zip(xs, point, strict=True)]
    if box:
        return reduce(torch.maximum, [gap.abs() for gap in gaps]) <= tolerance
    return reduce(torch.add, [gap * gap for gap in gaps]) <= tolerance * tolerance
