"""The gradients that a pass left behind: which parameters have one, and what may be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress, repeat
from operator import contains, is_
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Lists, Vector
from fenland.algebra.shards import layouts, local
from fenland.step.storage import HELD, holdings

_DENSE = {torch.strided}


@dataclass
class Gradients:
    """The parameters that have a gradient, with it.

    Attributes:
        params: parameters, in the order of the groups; DTensors included.
        groups: index of each parameter's group.
        tensors: their gradients, local tensors.
        held: who else uses each gradient's buffer (FREE, LENT or HELD).
        wholes: the gradients as `p.grad` holds them, DTensors included.
        V: the algebra over exactly these parameters.
    """

    params: list[Tensor]
    groups: list[int]
    tensors: Vector
    held: list[int]
    V: Lists
    wholes: list[Tensor] = field(default_factory=list)

    def weights(self) -> Vector:
        """The parameters' own values, local tensors."""
        return [local(p.detach()) for p in self.params]

    def secure(self) -> None:
        """Copy the gradients whose buffers the next backward would write into (DDP's bucket views)."""
        self.wholes = [secured(x) for x in self.wholes]
        self.tensors = [local(x) for x in self.wholes] if self.V.layouts is not None else self.wholes

    def make_writable(self) -> None:
        """Replace gradients that somebody keeps, or whose elements overlap, by copies: theirs stay as they are."""
        if HELD not in self.held and not any(map(contains, map(Tensor.stride, self.tensors), repeat(0))):
            return
        for i, (x, held) in enumerate(zip(self.tensors, self.held, strict=True)):
            if held == HELD or 0 in x.stride():
                own = self.wholes[i].clone(memory_format=torch.contiguous_format)
                self.params[i].grad = self.wholes[i] = own
                self.tensors[i] = local(own)

    def make_scratch(self) -> None:
        """Copy the gradients that somebody keeps, so that what is left may be overwritten as scratch."""
        self.tensors = [x.clone() if held == HELD else x for x, held in zip(self.tensors, self.held, strict=True)]

    def release(self) -> None:
        """Let go of the gradients (their norms stay with those who asked)."""
        self.tensors, self.wholes = [], []
        self.V.forget()

    def give_back(self) -> None:
        """Make these the parameters' gradients again."""
        for p, whole in zip(self.params, self.wholes, strict=True):
            p.grad = whole


def collect(param_groups: Sequence[dict[str, Any]], to_write: bool = True) -> Gradients:
    """Gather `p.grad` over all groups.

    Args:
        param_groups: an optimizer's groups.
        to_write: the gradients' buffers may be written to, so look who else uses them (else `held` is empty).

    Raises:
        TypeError: a gradient is sparse.
    """
    params: list[Tensor] = []
    groups: list[int] = []
    wholes: list[Any] = []
    for k, group in enumerate(param_groups):
        params += group["params"]
        groups += [k] * len(group["params"])
        wholes += [p.grad for p in group["params"]]
    if any(map(is_, wholes, repeat(None))):
        have = [x is not None for x in wholes]
        params, groups, wholes = (list(compress(xs, have)) for xs in (params, groups, wholes))
    if {x.layout for x in wholes} - _DENSE:
        raise TypeError(
            "a gradient is sparse: the ascent moves every element, so fenland needs dense gradients; "
            "build the embedding with sparse=False"
        )
    held = holdings(wholes) if to_write else []
    kinds = layouts(wholes)
    tensors = wholes if kinds is None else [local(t) for t in wholes]
    return Gradients(params, groups, tensors, held, Lists(kinds), wholes)


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
