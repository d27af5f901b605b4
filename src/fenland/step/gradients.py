"""The gradients that a pass left in `p.grad`: which parameters have one, and whose memory it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, repeat
from operator import contains, is_
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Leaf, Lists, Scalar, Vector
from fenland.algebra.shards import is_dtensor, layouts, local
from fenland.step.perturbation import ALIASED, BUCKET_VIEW, OWNED, holdings

_DENSE = {torch.strided}
_PLAIN = Lists()


class Gradient(Leaf):
    """The gradient of one pass over the parameters that have one.

    Attributes:
        held: for each tensor OWNED, BUCKET_VIEW or ALIASED: who else uses its memory.
        wholes: the tensors as `p.grad` held them, DTensors included.
    """

    __slots__ = ("held", "wholes")
    params: list[Tensor]

    def __init__(self, params: list[Tensor], wholes: Vector, factor: Scalar | None) -> None:
        kinds = layouts(wholes)
        self.held = holdings(wholes, sharded=kinds is not None)
        tensors = wholes if kinds is None else [local(x) for x in wholes]
        owned = [True] * len(wholes) if not any(self.held) else [h == OWNED for h in self.held]
        super().__init__(tensors, _PLAIN if kinds is None else Lists(kinds), params, owned, factor)
        self.wholes = wholes

    def replace(self, i: int, whole: Tensor) -> None:
        """Put another tensor in the place of the i-th."""
        self.wholes[i] = self.params[i].grad = whole
        self.raw[i] = local(whole)  # type: ignore[index]

    def own(self) -> None:
        """Copy what the next backward would write into (views of DDP's buckets)."""
        for i, x in enumerate(self.wholes):
            mine = own_copy(x)
            if mine is not x:
                self.wholes[i] = mine
                self.raw[i] = local(mine)  # type: ignore[index]

    def make_writable(self) -> None:
        """Replace gradients that somebody keeps, or whose elements overlap, by copies: theirs stay as they are."""
        raw: Vector = self.raw  # type: ignore[assignment]
        if ALIASED not in self.held and not any(map(contains, map(Tensor.stride, raw), repeat(0))):
            return
        for i, (x, held) in enumerate(zip(raw, self.held, strict=True)):
            if held == ALIASED or 0 in x.stride():
                self.replace(i, self.wholes[i].clone(memory_format=torch.contiguous_format))

    def give_back(self) -> None:
        """Make these the parameters' gradients again."""
        for p, whole in zip(self.params, self.wholes, strict=True):
            p.grad = whole

    def empty(self) -> None:
        self.raw, self.wholes = None, []


def collect(groups: Sequence[dict[str, Any]], factor: Any = None) -> Gradient:
    """Gather `p.grad` over all groups of an optimizer; `factor(tensors)` is 1 / loss scale or None.

    Raises:
        TypeError: a gradient is sparse.
    """
    params: list[Tensor] = []
    for group in groups:
        params += group["params"]
    wholes: list[Any] = [p.grad for p in params]
    if any(map(is_, wholes, repeat(None))):
        have = [x is not None for x in wholes]
        params, wholes = (list(compress(xs, have)) for xs in (params, wholes))
    if {x.layout for x in wholes} - _DENSE:
        raise TypeError(
            "a gradient is sparse: the ascent moves every element, so fenland needs dense gradients; "
            "build the embedding with sparse=False"
        )
    return Gradient(params, wholes, None if factor is None else factor(wholes))


def are_views(groups: Sequence[dict[str, Any]]) -> bool:
    """Whether there are gradients, and every one is a view of a larger buffer: DDP's, or one of the user's."""
    grads = [p.grad for group in groups for p in group["params"]]
    return bool(grads) and False not in [x is not None and x._is_view() and not is_dtensor(x) for x in grads]


def refuse_lost_views(found: Gradient) -> None:
    """Raise where every `p.grad` was a view of a buffer before the way to w + e, and none is after the pass there.

    On that way every `p.grad` becomes None. DDP makes its views anew; what a user has made stays behind, and would be
    zeroed and clipped without effect.
    """
    if found.params and BUCKET_VIEW not in found.held:
        raise RuntimeError(
            "every p.grad was a view of a buffer before the pass at w + e and none is after it: on the way there "
            "fenland sets p.grad to None. Make the views anew before each backward, or do without the buffer "
            "(max_norm= clips)"
        )


def drop(groups: Sequence[dict[str, Any]]) -> None:
    """Set every `p.grad` to None: its memory may hold w + e from here on."""
    for group in groups:
        for p in group["params"]:
            p.grad = None


def own_copy(grad: Tensor) -> Tensor:
    """The gradient itself, or a copy where it is a view of memory that others write to."""
    x = local(grad)
    lent = grad._is_view() or x.untyped_storage().nbytes() > x.numel() * x.element_size()
    return grad.clone() if lent else grad
