"""Problems whose weights are matrix factors: the linear autoencoder and matrix sensing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fenland.algebra import Vector
from fenland.arguments import check_among, check_whole
from fenland.lab.replicas.problems import Problem

NORMALIZATIONS = ("sum", "half", "samples", "elements")


@dataclass(frozen=True)
class LinearAutoencoder(Problem):
    """f = c * ||W2 W1 - I||_F^2 with square W1, W2 of shape (R, n, n): the n unit vectors, coded and decoded.

    The origin is a saddle: Hessian eigenvalues +-2c (along W1 = +-W2^T). Gradients 2c W2^T E and 2c E W1^T with
    E = W2 W1 - I. Source: Tan et al. 2025 (SSAM), arXiv 2401.07250, Fig. 1 (n = 20).

    Attributes:
        n: dimension.
        normalization: c = 1 ("sum"), 1/2 ("half"), 1/n, the mean over the n samples ("samples"), or 1/n^2, the mean
            squared error over all elements ("elements"). The paper leaves it open.
    """

    n: int = 20
    normalization: Literal["sum", "half", "samples", "elements"] = "sum"

    def __post_init__(self) -> None:
        check_whole("n", self.n, 1)
        check_among("normalization", self.normalization, NORMALIZATIONS)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.n, self.n), (self.n, self.n))

    @property
    def elementwise(self) -> bool:
        """No: it multiplies matrices."""
        return False

    @property
    def factor(self) -> float:
        """c."""
        return {"sum": 1.0, "half": 0.5, "samples": 1 / self.n, "elements": 1 / self.n**2}[self.normalization]

    def value(self, w: Vector) -> Tensor:
        return self.factor * self._error(w).square().sum((1, 2))

    def gradient(self, w: Vector) -> Vector:
        first, second = w
        error = 2 * self.factor * self._error(w)
        return [second.mT @ error, error @ first.mT]

    def _error(self, w: Vector) -> Tensor:
        first, second = w
        return second @ first - torch.eye(self.n, dtype=first.dtype, device=first.device)


@dataclass(frozen=True, eq=False)
class MatrixSensing(Problem):
    """f(U) = 1/(2m) * sum_i (<A_i, U U^T> - b_i)^2, U of shape (R, d, r), b_i = <A_i, X*>, X* = U* U*^T.

    A_i have independent standard normal entries; U* too, each column then scaled to unit length.
    Gradient: 1/m * sum_i r_i (A_i + A_i^T) U with r_i = <A_i, U U^T> - b_i. Only the symmetric part of A_i is seen, so
    its upper triangle is all that is kept: m * d(d+1)/2 numbers (0.1 GB at the paper's size).
    Source: "Investigations on SAM", appendix B, after Li, Ma, Zhang 2018; the loss's 1/(2m), the shape (d, r) of U and
    a start with columns of unit length are what reproduces its Table III.

    Attributes:
        d: rows of U.
        r: columns of U.
        m: number of measurements; None for 5*d*r, the paper's.
        seed: of the measurements and the truth.
    """

    d: int = 100
    r: int = 5
    m: int | None = None
    seed: int = 0
    sensing: Tensor = field(init=False, repr=False)
    observed: Tensor = field(init=False, repr=False)
    truth: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole("d", self.d, 1)
        check_whole("r", self.r, 1)
        generator = torch.Generator().manual_seed(self.seed)
        truth = self._unit_columns(1, generator)
        rows, columns = torch.triu_indices(self.d, self.d)
        m = 5 * self.d * self.r if self.m is None else self.m
        check_whole("m", m, 1)
        # A_ij + A_ji of two independent normals: one normal of variance 2; the diagonal is A_ii itself.
        spread = torch.where(rows == columns, 1.0, 2.0**0.5).to(torch.float64)
        sensing = torch.randn(m, rows.numel(), generator=generator, dtype=torch.float64).mul_(spread)
        object.__setattr__(self, "sensing", sensing)
        object.__setattr__(self, "truth", truth[0])
        object.__setattr__(self, "observed", self._upper(truth) @ sensing.T)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.d, self.r),)

    @property
    def elementwise(self) -> bool:
        """No: it multiplies matrices."""
        return False

    def start(self, count: int, seed: int = 0) -> Vector:
        """Starts (count, d, r) drawn like the truth: normal entries, each column then of unit length."""
        return [self._unit_columns(count, torch.Generator().manual_seed(1_000_003 * (seed + 1)))]

    def _unit_columns(self, count: int, generator: torch.Generator) -> Tensor:
        u = torch.randn(count, self.d, self.r, generator=generator, dtype=torch.float64)
        unit: Tensor = u / torch.linalg.vector_norm(u, dim=1, keepdim=True)
        return unit

    def _upper(self, u: Tensor) -> Tensor:
        rows, columns = torch.triu_indices(self.d, self.d)
        upper: Tensor = (u @ u.mT)[:, rows, columns]
        return upper

    def _residuals(self, u: Tensor) -> Tensor:
        return self._upper(u) @ self.sensing.T - self.observed

    def value(self, w: Vector) -> Tensor:
        return self._residuals(w[0]).square().mean(1) / 2

    def gradient(self, w: Vector) -> Vector:
        u = w[0]
        upper = self._residuals(u) @ self.sensing / self.sensing.shape[0]
        rows, columns = torch.triu_indices(self.d, self.d)
        half = torch.zeros(u.shape[0], self.d, self.d, dtype=u.dtype)
        half[:, rows, columns] = upper
        return [(half + half.mT) @ u]
