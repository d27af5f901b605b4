"""The gradients that a pass left in `p.grad`: which parameters have one, whose memory it is, and their loss scale.

The only file that knows a `torch.amp.GradScaler`; nobody touches its state.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import compress, repeat
from operator import attrgetter, contains, is_
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Leaf, Lists, Scalar, Vector
from fenland.algebra.lists import scale_
from fenland.algebra.shards import PLAIN, is_dtensor, layouts, local
from fenland.step.perturbation import ALIASED, BUCKET_VIEW, OWNED, StorageCache, holdings

_DENSE = {torch.strided}
_grad, _layout = attrgetter("grad"), attrgetter("layout")


class Gradient(Leaf):
    """The gradient of one pass over the parameters that have one.

    Attributes:
        wholes: the tensors as `p.grad` held them, DTensors included.
        held: for each tensor OWNED, BUCKET_VIEW or ALIASED: who else uses its memory. Empty, and `owned` None, until
            `look`.
    """

    params: list[Tensor]

    def __init__(self, params: list[Tensor], wholes: Vector, V: Lists, factor: Scalar | None) -> None:
        tensors = wholes if V.layouts is None else [local(x) for x in wholes]
        super().__init__(tensors, V, params, None, factor)
        self.wholes = wholes
        self.held: list[int] = []

    def look(self) -> None:
        """Ask who else uses the memory, before somebody writes to it; once, and while `p.grad` has it.

        A last gradient that goes to the base as it is is never asked.
        """
        if len(self.held) < len(self.wholes):
            self.held = holdings(self.wholes, sharded=self.V.layouts is not None)  # type: ignore[attr-defined]
            self.owned = list(map(OWNED.__eq__, self.held))

    def replace(self, i: int, whole: Tensor) -> None:
        """Put another tensor in the place of the i-th."""
        self.wholes[i] = self.params[i].grad = whole
        self.raw[i] = local(whole)  # type: ignore[index]

    def own(self) -> None:
        """Copy what the next backward would write into (views of DDP's buckets)."""
        self.look()
        if self.held.count(OWNED) == len(self.held):
            return
        for i, x in enumerate(self.wholes):
            mine = own_copy(x)
            if mine is not x:
                self.wholes[i] = mine
                self.raw[i] = local(mine)  # type: ignore[index]

    def make_writable(self) -> None:
        """Replace gradients that somebody keeps, or whose elements overlap, by copies: theirs stay as they are."""
        raw: Vector = self.raw  # type: ignore[assignment]
        self.look()
        if ALIASED not in self.held and not any(map(contains, map(Tensor.stride, raw), repeat(0))):
            return
        for i, (x, held) in enumerate(zip(raw, self.held, strict=True)):
            if held == ALIASED or 0 in x.stride():
                self.replace(i, self.wholes[i].clone(memory_format=torch.contiguous_format))

    def give_back(self) -> None:
        """Make these the parameters' gradients again."""
        for p, whole in zip(self.params, self.wholes, strict=True):
            p.grad = whole


def collect(
    groups: Sequence[dict[str, Any]], factor: Any = None, cache: StorageCache | None = None, away: bool = False
) -> Gradient:
    """Gather `p.grad` over all groups of an optimizer.

    Args:
        groups: of the optimizer.
        factor: `factor(tensors)` is 1 / loss scale or None.
        cache: what is known of these parameters.
        away: they are at w + e.

    Raises:
        TypeError: a gradient is sparse.
    """
    params: list[Tensor] = []
    for group in groups:
        params += group["params"]
    wholes: list[Any] = list(map(_grad, params))
    if any(map(is_, wholes, repeat(None))):
        have = [x is not None for x in wholes]
        params, wholes = (list(compress(xs, have)) for xs in (params, wholes))
    if not _DENSE.issuperset(map(_layout, wholes)):
        raise TypeError(
            "a gradient is sparse: the ascent moves every element, so fenland needs dense gradients; "
            "build the embedding with sparse=False"
        )
    kinds = None if PLAIN.issuperset(map(type, wholes)) else layouts(wholes)
    if kinds is not None or cache is None:
        V = Lists(kinds)
    elif not away:
        V = cache.look(params)
    else:
        V = cache.V if list(map(id, params)) == cache.known[0] else Lists()
    return Gradient(params, wholes, V, None if factor is None else factor(wholes))


def are_views(groups: Sequence[dict[str, Any]]) -> bool:
    """Whether there are gradients, and every one is a view of a larger buffer: DDP's, or one of the user's.

    A transposed gradient, as `torch.func.grad` makes them, is a view, too, but of nothing larger.
    """
    grads = [p.grad for group in groups for p in group["params"]]
    return bool(grads) and False not in [x is not None and x._is_view() and _is_part(x) for x in grads]


def _is_part(grad: Tensor) -> bool:
    return not is_dtensor(grad) and grad.untyped_storage().nbytes() > grad.nbytes


def refuse_lost_views(found: Gradient) -> None:
    """Raise where every `p.grad` was a view of a buffer before the way to w + e, and none is after the pass there.

    On that way every `p.grad` becomes None. DDP makes its views anew; what a user has made stays behind, and would be
    zeroed and clipped without effect.
    """
    found.look()
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


def release(gradients: list[Gradient], kept: Set[Leaf], groups: Sequence[dict[str, Any]]) -> list[Gradient]:
    """Set every `p.grad` to None before a pass; of these gradients the kept ones are left, in memory of their own."""
    left = []
    for gradient in gradients:
        if gradient in kept:
            gradient.own()
            left.append(gradient)
        else:
            gradient.raw, gradient.wholes = None, []
    for group in groups:
        for p in group["params"]:
            p.grad = None
    return left


def own_copy(grad: Tensor) -> Tensor:
    """The gradient itself, or a copy where it is a view of memory that others write to."""
    x = local(grad)
    lent = grad._is_view() or x.untyped_storage().nbytes() > x.numel() * x.element_size()
    return grad.clone() if lent else grad


class Scaled:
    """The gradients carry the scale of an active scaler.

    Args:
        scaler: the scaler that the closure scales its loss with.
        claim: called with the scaler to note that the wrapping optimizer is unscaled; raises where the user did so.
    """

    def __init__(self, scaler: Any, claim: Any) -> None:
        self.scaler, self.claim = scaler, claim
        self.checked = False  # whether the scaler has seen a gradient of the base

    def factor(self, like: Vector) -> Scalar | None:
        """1 / scale, what gradients must still be multiplied with."""
        if not like:
            return None
        scale: Scalar = self.scaler.scale(torch.ones((), device=like[0].device))  # on the device, no synchronisation
        return scale.reciprocal()

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss as backward is run on it."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    def unscale(self, base: torch.optim.Optimizer, d: Gradient, others: Sequence[Leaf]) -> None:
        """Let the scaler unscale what `p.grad` holds, and see whether it is finite.

        Once a step, on d's own memory, which gets the scale back first where it has left already.

        An overflow of another pass is made visible to it: 0 * ||g|| is added to the smallest gradient, nothing where
        ||g|| is finite, NaN where it is not.

        Raises:
            RuntimeError: the scaler has unscaled or stepped one of the two optimizers since its last update.
        """
        for leaf in others:
            mark_nonfinite(d.wholes, leaf.norm)
        grads = [p.grad for group in base.param_groups for p in group["params"] if p.grad is not None]
        self.checked = bool(grads)
        if d.factor is None and grads:
            scale_(self.scaler.scale(torch.ones((), device=grads[0].device)), grads)
        try:
            self.claim(self.scaler)
            self.scaler.unscale_(base)
        except RuntimeError as error:
            raise RuntimeError(
                "the scaler has unscaled this optimizer's gradients already: take scaler.unscale_() out of the closure "
                "(fenland unscales; max_norm= clips), and call scaler.update() once after every step"
            ) from error
        d.factor = None

    def step(self, base: torch.optim.Optimizer, taken: bool = True) -> None:
        """Step the base, or leave it out after an overflow; a scaler steps none in which it has seen no gradient."""
        if self.checked:
            self.scaler.step(base)
        elif taken:
            base.step()


def mark_nonfinite(xs: Vector, norm: Scalar) -> None:
    """Add 0 * norm to the smallest tensor."""
    if xs:
        smallest = min((x for x in xs if x.numel()), key=lambda x: x.numel())
        smallest.add_((norm * 0).to(smallest.device))
