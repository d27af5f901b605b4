"""The gradients that a pass left behind: which parameters have one, and what may be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Lists, Vector
from fenland.algebra.shards import layouts, local
from fenland.step.travel import unshared


@dataclass
class Gradients:
    """The parameters that have a gradient, with it.

    Attributes:
        params: parameters, in the order of the groups; DTensors included.
        groups: index of each parameter's group.
        tensors: their gradients, local tensors.
        free: whether each gradient's buffer is nobody else's.
        wholes: the gradients as `p.grad` holds them, DTensors included.
        V: the algebra over exactly these parameters.
    """

    params: list[Tensor]
    groups: list[int]
    tensors: Vector
    free: list[bool]
    V: Lists
    wholes: list[Tensor] = field(default_factory=list)

    def weights(self) -> Vector:
        """The parameters' own values, local tensors."""
        return [local(p.detach()) for p in self.params]

    def secure(self) -> None:
        """Copy the gradients whose buffers the next backward would write into (DDP's bucket views)."""
        self.wholes = [secured(x) for x in self.wholes]
        self.tensors = [local(x) for x in self.wholes] if self.V.layouts is not None else self.wholes

    def release(self) -> None:
        """Let go of the gradients (their norms stay with those who asked)."""
        self.tensors, self.wholes = [], []
        self.V.forget()

    def give_back(self) -> None:
        """Make these the parameters' gradients again."""
        for p, whole in zip(self.params, self.wholes, strict=True):
            p.grad = whole


def collect(param_groups: Sequence[dict[str, Any]]) -> Gradients:
    """Gather `p.grad` over all groups.

    Raises:
        TypeError: a gradient is sparse.
    """
    params: list[Tensor] = []
    groups: list[int] = []
    for k, group in enumerate(param_groups):
        for p in group["params"]:
            if p.grad is not None:
                params.append(p)
                groups.append(k)
    tensors = [p.grad for p in params]
    free = unshared(tensors)  # type: ignore[arg-type]
    if any(t.layout is not torch.strided for t in tensors):  # type: ignore[union-attr]
        raise TypeError(
            "a gradient is sparse: the ascent moves every element, so fenland needs dense gradients; "
            "build the embedding with sparse=False"
        )
    wholes: list[Tensor] = tensors  # type: ignore[assignment]
    kinds = layouts(wholes)
    return Gradients(
        params, groups, wholes if kinds is None else [local(t) for t in wholes], free, Lists(kinds), wholes
    )


def drop(param_groups: Sequence[dict[str, Any]]) -> None:
    """Set every `p.grad` to None: its buffer may hold w + e from here on."""
    for group in param_groups:
        for p in group["params"]:
            p.grad = None


def secured(grad: Tensor) -> Tensor:
    """The gradient itself, or a copy where it is a view of a buffer that others write to."""
    return grad.clone() if grad._is_view() or local(grad).untyped_storage().nbytes() > _nbytes(grad) else grad


def _nbytes(t: Tensor) -> int:
    x = local(t)
    return x.numel() * x.element_size()
