"""What a rule may do with vectors: about a dozen operations, the same for one model and for thousands of replicas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

Vector: TypeAlias = list[Tensor]  # one point of parameter space: one tensor per parameter
Scalar: TypeAlias = Tensor  # shape () for one model, (R,) for R replicas


class Algebra(ABC):
    """Arithmetic of vectors that are lists of tensors.

    Reductions (`dot`, `norm`) run over all tensors and return a `Scalar` in at least float32 (float64 for float64).

    Attributes:
        batch_dims: leading dimensions of every tensor that count replicas, not weights.
        looks: whether scalars on a CPU are looked at (they are at hand there, and on no other device).
    """

    batch_dims: ClassVar[int] = 0
    looks: ClassVar[bool] = True

    @abstractmethod
    def norm(self, xs: Vector) -> Scalar:
        """||x||_2."""

    @abstractmethod
    def dot(self, xs: Vector, ys: Vector) -> Scalar:
        """<x, y>, the real part where the tensors are complex."""

    @abstractmethod
    def absmax(self, xs: Vector) -> Scalar:
        """||x||_inf = max |x_i|."""

    @abstractmethod
    def total(self, xs: Vector) -> Scalar:
        """sum_i x_i."""

    @abstractmethod
    def scale(self, s: Scalar | float, xs: Vector) -> Vector:
        """s * x, new tensors."""

    @abstractmethod
    def per_tensor_norms(self, xs: Vector) -> list[Scalar]:
        """||x_l||_2 of each tensor l."""

    def scale_(self, s: Scalar, xs: Vector) -> None:
        """x <- s * x in place."""
        raise NotImplementedError(f"{type(self).__name__} writes to no tensor")

    def only(self, keep: Sequence[int]) -> Algebra:
        """The algebra of the tensors at these positions."""
        return self

    def joined(self, params: Sequence[Tensor], leaves: Sequence[Any]) -> Algebra:
        """The algebra over these parameters, each of which some leaf has."""
        return self

    def axpy(self, s: Scalar | float, xs: Vector, ys: Vector) -> Vector:
        """s * x + y, new tensors."""
        return self.add(self.scale(s, xs), ys)

    def mix(self, coefficients: Sequence[Scalar | float], vectors: Sequence[Vector]) -> Vector:
        """sum_i c_i * x_i, new tensors; factors that are plainly 0 or 1 cost nothing."""
        parts = [
            xs if not isinstance(c, Tensor) and c == 1 else self.scale(float(c) if isinstance(c, int) else c, xs)
            for c, xs in zip(coefficients, vectors, strict=True)
            if isinstance(c, Tensor) or c != 0
        ]
        if not parts:
            return [torch.zeros_like(x) for x in vectors[0]]
        total = parts[0]
        for part in parts[1:]:
            total = self.add(total, part)
        return self.map(Tensor.clone, total) if any(total is xs for xs in vectors) else total

    def add(self, xs: Vector, ys: Vector) -> Vector:
        """x + y, new tensors."""
        return list(torch._foreach_add(xs, ys)) if xs else []

    def mul(self, xs: Vector, ys: Vector) -> Vector:
        """x * y, elementwise, new tensors."""
        return list(torch._foreach_mul(xs, ys)) if xs else []

    def map(self, f: Callable[[Tensor], Tensor], xs: Vector) -> Vector:
        """f applied to each tensor."""
        return [f(x) for x in xs]

    def metric_step(
        self, root: Callable[..., Tensor], a: Vector, *others: Vector, spend: bool = False
    ) -> tuple[Vector, Scalar]:
        """(R^2 a, ||R a||) for a diagonal R = root(a, *others), which is formed element by element.

        R^2 a is new tensors, or a itself where `spend` allows to overwrite it. The length is sought among norms, not
        squares, so that 1e-20 does not vanish.
        """
        roots = [root(*xs) for xs in zip(a, *others, strict=True)]
        scaled = self.mul(roots, a)
        return self.mul(roots, scaled), self.norm(scaled)


def accumulator_dtype(xs: Sequence[Tensor]) -> torch.dtype:
    """The dtype of sums over `xs`: float64 where any tensor is double, else float32."""
    return torch.float32 if _DOUBLE.isdisjoint([x.dtype for x in xs]) else torch.float64


_DOUBLE = frozenset((torch.float64, torch.complex128))
