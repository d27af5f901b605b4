"""Designed landscapes: two wells of equal depth and different curvature, flat or on a manifold, and a curved valley."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fenland.algebra import Vector
from fenland.lab.replicas.problems import Coordinates, Problem


@dataclass(frozen=True)
class TwoWells(Problem):
    """f = -T * log(sum_i exp(-q_i / T)), q_i = sum_j a_ij (w_j - c_ij)^2 / 2: the lower of two paraboloids, softened.

    Both wells are about 0 deep. The Hessian at c_i is diag(a_i), up to exp(-q_other / T). Restricted to a sphere or to
    Stiefel's manifold, with centres on it and one curvature k_i in all directions, q_i = k_i * (p - <c_i, w>), whose
    Riemannian Hessian at c_i is k_i in every tangent direction: with the Euclidean gradient -k_i*c_i it is
    P(0 + k_i * Z * sym(c_i^T c_i)) = k_i * Z. Derived.
    """

    # of the sharp and of the flat well, numbers in the order of the coordinates
    centres: tuple[tuple[float, ...], tuple[float, ...]]
    curvatures: tuple[tuple[float, ...], tuple[float, ...]]  # a_ij, likewise (loss / w^2)
    shape: tuple[int, ...]  # of w: (n,) or (n, p)
    temperature: float = 0.5  # T (loss)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One weight."""
        return (self.shape,)

    @property
    def elementwise(self) -> bool:
        """No."""
        return False

    def value(self, w: Vector) -> Tensor:
        soft: Tensor = -self.temperature * torch.logsumexp(-self.wells(w[0])[0] / self.temperature, 1)
        return soft

    def gradient(self, w: Vector) -> Vector:
        q, slopes = self.wells(w[0])
        share = torch.softmax(-q / self.temperature, 1)
        return [(share[:, :, None] * slopes).sum(1).reshape(w[0].shape)]

    def wells(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """q_i of each replica, (R, 2), and their gradients, (R, 2, n)."""
        centres, a = (torch.tensor(x, dtype=w.dtype) for x in (self.centres, self.curvatures))
        away = w.reshape(len(w), 1, -1) - centres
        return (a * away.square()).sum(2) / 2, a * away

    def on_ridge(self, w: Tensor) -> Tensor:
        """Whether neither well is clearly the lower one, (R,): q_sharp and q_flat within a factor of 2."""
        q = self.wells(w)[0]
        return q.amax(1) < 2 * q.amin(1)

    def in_flat(self, w: Tensor) -> Tensor:
        """Whether the flat well is the lower one, (R,)."""
        q = self.wells(w)[0]
        return q[:, 1] < q[:, 0]


@dataclass(frozen=True)
class Hyperbola(Coordinates):
    """f = (u*v - 1)^2 / 2: its minima are a curve, with curvature u^2 + v^2 across it and 0 along it.

    The flattest minima are u = v = +-1, of curvature 2: along the curve 1/u^2 + u^2 >= 2. Gradient descent in small
    steps keeps u^2 - v^2, and so the curvature it meets; whoever ends flatter has gone along the valley. Derived.
    """

    def formula(self, xs: list[Tensor]) -> Tensor:
        return (xs[0] * xs[1] - 1).square() / 2

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        u, v = xs
        r = u * v - 1
        return [r * v, r * u]

    def curvature(self, points: Tensor) -> Tensor:
        """u^2 + v^2 of points (R, 2): the curvature of a minimum there."""
        return points.square().sum(1)


def valley(sharp: float, flat: float, anisotropy: float, distance: float = 3.0) -> TwoWells:
    """Two wells on the first axis, ``anisotropy`` times as steep across it as along it."""
    half = distance / 2
    return TwoWells(
        ((-half, 0.0), (half, 0.0)), ((sharp / anisotropy, sharp), (flat / anisotropy, flat)), (2,)
    )  # fmt: skip


def on_sphere(sharp: float, flat: float, n: int) -> TwoWells:
    """Two wells at opposite ends of the unit sphere in n dimensions."""
    one = (1.0, *(0.0,) * (n - 1))
    return TwoWells((one, tuple(-x for x in one)), ((sharp,) * n, (flat,) * n), (n,))


def on_stiefel(sharp: float, flat: float, n: int, p: int) -> TwoWells:
    """Two wells at W and -W of Stiefel's manifold of n x p matrices with orthonormal columns, W = the first p units."""
    eye = torch.eye(n, p).reshape(-1).tolist()
    return TwoWells((tuple(eye), tuple(-x for x in eye)), ((sharp,) * (n * p), (flat,) * (n * p)), (n, p))
