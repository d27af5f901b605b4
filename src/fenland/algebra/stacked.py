"""Thousands of replicas of one small problem: every tensor has a leading replica dimension, scalars have shape (R,)."""

from __future__ import annotations

from functools import reduce
from typing import ClassVar

import torch

from fenland.algebra.base import Algebra, Scalar, Vector, accumulator_dtype


class Stacked(Algebra):
    """Arithmetic over R independent replicas at once; the rules run on it unchanged.

    Every tensor has shape (R, *shape); reductions leave the first dimension alone and return shape (R,).
    """

    batch_dims: ClassVar[int] = 1

    def norm(self, xs: Vector) -> Scalar:
        if len(xs) == 1:
            return self.per_tensor_norms(xs)[0]
        return _added([part * part for part in self._signed_norms(xs)]).sqrt()

    def _signed_norms(self, xs: Vector) -> list[Scalar]:
        """Norms of each tensor; a weight of one number stands for its own, up to the sign."""
        dtype = accumulator_dtype(xs)
        if all(x.numel() == x.shape[0] for x in xs):
            return [x.reshape(-1).to(dtype) for x in xs]
        return self.per_tensor_norms(xs)

    def per_tensor_norms(self, xs: Vector) -> list[Scalar]:
        dtype = accumulator_dtype(xs)
        return [torch.linalg.vector_norm(x.reshape(x.shape[0], -1), dim=1, dtype=dtype) for x in xs]

    def dot(self, xs: Vector, ys: Vector) -> Scalar:
        dtype = accumulator_dtype(xs)
        return _added([(x * y).reshape(x.shape[0], -1).sum(1, dtype=dtype) for x, y in zip(xs, ys, strict=True)])

    def absmax(self, xs: Vector) -> Scalar:
        return reduce(torch.maximum, [x.abs().reshape(x.shape[0], -1).amax(1) for x in xs])

    def total(self, xs: Vector) -> Scalar:
        return _added([x.reshape(x.shape[0], -1).sum(1) for x in xs])

    def scale(self, s: Scalar | float, xs: Vector) -> Vector:
        if isinstance(s, float):
            return [x * s for x in xs]
        return [x * s.reshape(-1, *(1,) * (x.dim() - 1)) for x in xs]


def _added(parts: list[Scalar]) -> Scalar:
    """Their sum, one after the other: a stack would be a pass through memory where all else fuses into one loop."""
    return reduce(torch.add, parts)
