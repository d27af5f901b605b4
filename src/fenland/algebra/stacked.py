"""Thousands of replicas of one small problem: every tensor has a leading replica dimension, scalars have shape (R,)."""

from __future__ import annotations

from typing import ClassVar

import torch

from fenland.algebra.base import Algebra, Scalar, Vector, accumulator_dtype


class Stacked(Algebra):
    """Arithmetic over R independent replicas at once; the rules run on it unchanged.

    Every tensor has shape (R, *shape); reductions leave the first dimension alone and return shape (R,).
    """

    batch_dims: ClassVar[int] = 1

    def norm(self, xs: Vector) -> Scalar:
        parts = self.per_tensor_norms(xs)
        return torch.linalg.vector_norm(torch.stack(parts), dim=0) if len(parts) > 1 else parts[0]

    def per_tensor_norms(self, xs: Vector) -> list[Scalar]:
        dtype = accumulator_dtype(xs)
        return [torch.linalg.vector_norm(x.reshape(x.shape[0], -1), dim=1, dtype=dtype) for x in xs]

    def dot(self, xs: Vector, ys: Vector) -> Scalar:
        dtype = accumulator_dtype(xs)
        parts = [(x * y).reshape(x.shape[0], -1).sum(1, dtype=dtype) for x, y in zip(xs, ys, strict=True)]
        return torch.stack(parts).sum(0)

    def absmax(self, xs: Vector) -> Scalar:
        return torch.stack([x.abs().reshape(x.shape[0], -1).amax(1) for x in xs]).amax(0)

    def total(self, xs: Vector) -> Scalar:
        return torch.stack([x.reshape(x.shape[0], -1).sum(1) for x in xs]).sum(0)

    def scale(self, s: Scalar | float, xs: Vector) -> Vector:
        if isinstance(s, float):
            return [x * s for x in xs]
        return [x * s.reshape(-1, *(1,) * (x.dim() - 1)) for x in xs]
