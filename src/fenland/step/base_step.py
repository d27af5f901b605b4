"""From a method's update to the base: d is formed in `p.grad`, and the base steps with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_pre_hooks

from fenland.algebra import Coefficient, Lazy, Leaf, Scalar, Vector
from fenland.algebra.lazy import aligned, times
from fenland.algebra.lists import combine_, scale_
from fenland.algebra.shards import local
from fenland.step.gradients import Gradient, collect

_LARGEST = {t: torch.finfo(t).max for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
_LARGEST |= {t: torch.finfo(t).max for t in (torch.complex32, torch.complex64, torch.complex128)}
_dtype = attrgetter("dtype")
CLIP_FLOOR = 1e-6  # torch.nn.utils.clip_grad_norm_ adds the same, so that both clip alike


@dataclass
class Handover:
    """What the base is handed: factor * d, d being in `p.grad`.

    Attributes:
        d: the gradients as they stand, local tensors.
        factor: what is still to be multiplied in.
        finite: whether this step may be taken, as far as the host looks; else a 0-d bool tensor.
        after: after the base's step, w += lr * c: (local w, c, group).
    """

    d: Vector
    factor: Coefficient
    finite: bool | Tensor
    after: list[tuple[Tensor, Tensor, dict[str, Any]]] = field(default_factory=list)


def clip_factor(max_norm: float, d: Lazy) -> Scalar:
    """min(1, max_norm / ||d||)."""
    factor: Scalar = (max_norm / (d.norm + CLIP_FLOOR)).clamp_max(1.0)
    return factor


def settle(s: Any, clip: bool = True, last: bool = True, whole: bool = False) -> Handover:
    """Leave a step's d in `p.grad`, up to a factor that is still to be multiplied in.

    Args:
        s: the `Step`, whose program has come to its `Update`.
        clip: apply max_norm.
        last: False for one of several micro-batches.
        whole: leave no factor.
    """
    d, after, leaves = s.request.d, s.request.after, list(filter(None, (s.g, s.h)))
    if s.h is not None and not s.h.params:  # no backward at w + e, so there is nothing to combine
        d, after = s.h, None
    finite, look = is_finite(d, leaves, s.host)
    if s.rules.nonfinite == "base_step" and s.g is not None and not bool(finite):
        d, after = s.g, None
        finite, look = is_finite(d, [d], s.host)
        forget_nonfinite(s)
    s.fill_record()
    averaged = s.reduction.ranks_differ and s.reduction.must_average(s.last)
    added = [] if after is None else corrections(after, s.groups, averaged)
    bound = s.rules.max_norm if clip else None
    carrier = youngest(d)
    if carrier is not s.at_hand:
        s.drop()
        carrier.give_back()
    if s.scaling is not None and last and not averaged:
        s.scaling.unscale(s.base_optimizer, carrier, [x for x in leaves if x is not carrier])
    formed, factor = form(d, s.groups, None if averaged or bound is None else clip_factor(bound, d), carrier)
    if averaged:  # until here d is each rank's own
        multiply_in(formed, factor)
        formed = s.reduction.average(s.groups)
        factor = 1.0 if bound is None else clip_factor(bound, formed)
        if s.scaling is not None and last:
            s.scaling.unscale(s.base_optimizer, formed, ())
    left = isinstance(factor, Tensor) or factor != 1.0
    if left and (look or whole or not last or not base_multiplies(formed, factor, s.base_optimizer)):
        multiply_in(formed, factor)
        factor = 1.0
    finite = all_finite(formed.raw or []) if look else finite
    if s.vectors or added:
        finite = and_what_stays(finite, s, added, leaves)
    if s.reduction.ranks_differ:  # g is each rank's own, d or h everybody's
        finite = torch.isfinite(formed.norm if averaged else leaves[-1].norm)
    s.record.finite = finite
    return Handover(formed.raw or [], factor, finite, added)


def is_fused(base: torch.optim.Optimizer) -> bool:
    """Whether every group of the base runs a fused kernel, which takes `grad_scale` and `found_inf`.

    A wrapper (ZeroRedundancyOptimizer) shows the fused groups of what it wraps but does not pass the two on.
    """
    takes = getattr(base, "_step_supports_amp_scaling", False)
    return bool(takes) and all(group.get("fused") for group in base.param_groups)


def form(
    d: Lazy, groups: Sequence[dict[str, Any]], factor: Scalar | None = None, carrier: Gradient | None = None
) -> tuple[Gradient, Coefficient]:
    """Write a sum into the memory of its youngest gradient, the carrier, which becomes `p.grad`.

    Returns:
        The gradient that holds it, and the factor that is still to be multiplied in (of a single term).
    """
    carrier = youngest(d) if carrier is None else carrier
    terms = d.terms
    if len(terms) == 1:
        c = terms[0][0] if carrier.factor is None else terms[0][0] * carrier.factor
        return carrier, c if factor is None else c * factor
    for _, x in d.terms:
        if x is not carrier:
            x.tensors  # noqa: B018 - takes a loss scale out, so that the sum rounds as it does without one
    order, lists, _ = aligned([x for _, x in d.terms])
    if order is not None and len(order) > len(carrier.params):
        carrier, lists = _extended(carrier, d, order, lists, groups)
    else:
        carrier.make_writable()
        lists = _in_order_of(carrier, order or (), lists)
    into = carrier.raw
    others = []
    beta: Coefficient = 1.0
    for (c, x), xs in zip(d.terms, lists, strict=True):
        k = c if x.factor is None else c * x.factor
        k = k if factor is None else times(k, factor)
        if x.serial == carrier.serial:
            beta = k
        else:
            others.append((k, xs, x.owned is not None and all(x.owned)))
    for k, xs, scratch in others:
        combine_(k, xs, beta, into, scratch=scratch)  # type: ignore[arg-type]
        beta = 1.0
    carrier.factor = None
    return carrier, 1.0


def youngest(d: Lazy) -> Any:
    """The last of a sum's gradients whose memory is still its own."""
    best: Any = None
    for _, x in d.terms:
        if isinstance(x, Gradient) and (best is None or x.serial > best.serial):
            best = x
    if best is None:
        raise RuntimeError("the update is made of no gradient of this step: yield Update of something that Grad() gave")
    best.tensors if best.raw is None else None  # noqa: B018 - says "write keep=g"
    return best


def _extended(
    carrier: Gradient, d: Lazy, order: Sequence[Tensor], lists: list[Vector], groups: Sequence[dict[str, Any]]
) -> tuple[Gradient, list[Vector]]:
    """The same gradient over all parameters that any pass used: where it has none it is zero."""
    known = {
        p: x for _, leaf in d.terms if isinstance(leaf, Gradient) for p, x in zip(leaf.params, leaf.wholes, strict=True)
    }
    mine = dict(zip(carrier.params, carrier.wholes, strict=True))
    for p in order:
        p.grad = mine[p] if p in mine else torch.zeros_like(known.get(p, p))
    wide = collect(groups)
    wide.serial, wide.factor = carrier.serial, carrier.factor
    wide.make_writable()
    return wide, _in_order_of(wide, order, lists)


def _in_order_of(carrier: Gradient, order: Sequence[Tensor], lists: list[Vector]) -> list[Vector]:
    """Lists over the parameters `order` as lists over the carrier's: passes meet parameters in different orders."""
    if order is carrier.params or all(map(is_, order, carrier.params)):
        return lists
    at = {p: i for i, p in enumerate(order)}
    return [[xs[at[p]] for p in carrier.params] for xs in lists]


def base_multiplies(d: Gradient, factor: Coefficient, base: torch.optim.Optimizer) -> bool:
    """Whether the base itself takes the factor: it is fused, float32's precision is enough, and no hook looks at d."""
    if not isinstance(factor, Tensor) or not is_fused(base) or d.V.layouts is not None:  # type: ignore[attr-defined]
        return False
    if _global_optimizer_pre_hooks or base._optimizer_step_pre_hooks:
        return False
    return all(x.dtype != torch.float64 for x in d.raw or ())


def multiply_in(d: Gradient, factor: Coefficient) -> None:
    """d <- factor * d, in memory of its own."""
    if isinstance(factor, Tensor) or factor != 1.0:
        d.make_writable()
        scale_(factor, d.raw or [])
        d.factor = None


def corrections(
    after: Lazy, groups: Sequence[dict[str, Any]], averaged: bool
) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
    """What is added to w after the base's step, formed before d is; in the memory of its youngest gradient."""
    if averaged:
        raise ValueError(
            'sync = "local": a method that corrects w after the base\'s step (decoupled WSAM) would add each '
            'rank\'s own correction; use sync="global"'
        )
    formed, factor = form(after, groups)
    scale_(factor, formed.tensors)
    group_of = {p: group for group in groups for p in group["params"]}
    pairs = zip(formed.params, formed.tensors, strict=True)
    return [(local(p.detach()), x, group_of[p]) for p, x in pairs]


def is_finite(d: Lazy, leaves: Sequence[Leaf], host: bool) -> tuple[bool | Tensor, bool]:
    """(whether all passes were finite, whether d itself must be looked at: finite gradients may overflow in a sum)."""
    first, last, terms = leaves[0].norm, leaves[-1].norm, d.terms
    single = len(terms) == 1 and not isinstance(terms[0][0], Tensor)
    finite: bool | Tensor = host and math.isfinite(first.item()) and math.isfinite(last.item())
    if not host:
        finite = first - first == last - last  # neither is infinite or NaN, in three small operations
    if single:
        return finite, False
    dtypes = set(map(_dtype, chain.from_iterable([x.raw or () for _, x in terms]))) or {torch.float32}
    largest = min(map(_LARGEST.__getitem__, dtypes))
    if host:
        bound = sum([abs(float(c)) * x.norm.item() for c, x in terms])
        return finite, bool(finite) and not bound < largest
    return finite & (sum([abs(c) * x.norm for c, x in terms], start=0.0) < largest), False


def near_overflow(leaves: Sequence[Leaf]) -> bool:
    """Whether products of such gradients may leave their dtype: then what a rule keeps of them is looked at, too."""
    dtypes = {t.dtype for x in leaves for t in x.raw or ()} or {torch.float32}
    return any(x.norm.item() > min(map(_LARGEST.__getitem__, dtypes)) ** 0.4 for x in leaves)


def forget_nonfinite(s: Any) -> None:
    """Of what the program has put in this step, what h made infinite or NaN: later steps would read it."""
    s.vectors = {name: values for name, values in s.vectors.items() if all_finite(list(values.values()))}
    before = s.memory.numbers
    s.numbers = {name: x if math.isfinite(x) else before.get(name, x) for name, x in s.numbers.items()}


def and_what_stays(finite: Any, s: Any, added: Sequence[tuple[Tensor, Tensor, Any]], leaves: Sequence[Leaf]) -> Any:
    """Whether what this step would keep, or add to w, is finite too: the host looks where products may overflow."""
    if not (s.host and finite and near_overflow(leaves)):
        return finite
    return all_finite([*(x for values in s.vectors.values() for x in values.values()), *(c for _, c, _ in added)])


def all_finite(d: Vector) -> bool:
    """Whether every element is finite, as the host sees it."""
    return bool(torch.stack([torch.isfinite(x).all() for x in d]).all()) if d else True


def step_base(base: torch.optim.Optimizer, given: Handover, scaling: Any, found_inf: Tensor | None) -> None:
    """Step the base with factor * d, then w += lr * after.

    Args:
        base: the wrapped optimizer.
        given: d and its factor.
        scaling: `Scaled`, which calls the base, or None.
        found_inf: 0-d tensor, 1 to make a fused base skip its step without a host synchronisation.
    """
    handed: dict[str, Tensor] = {}
    if isinstance(given.factor, Tensor):
        handed["grad_scale"] = given.factor.reciprocal().float()
    if found_inf is not None:
        handed["found_inf"] = found_inf
    for name, value in handed.items():  # torch's own protocol of fused optimizers, as its GradScaler uses it
        setattr(base, name, value)
    try:
        base.step() if scaling is None else scaling.step(base)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise RuntimeError(
            f"base is {type(base).__name__}, which differentiates the gradient in p.grad (backward with "
            "create_graph=True): the graph does not survive the way to w + e; use a first-order optimizer"
        ) from error
    finally:
        for name in handed:
            if name in base.__dict__:
                delattr(base, name)
    for w, c, group in given.after:
        lr = group["lr"]
        w.addcmul_(c, lr) if isinstance(lr, Tensor) else w.add_(c, alpha=lr)
