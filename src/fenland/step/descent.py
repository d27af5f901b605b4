"""The second half of a step: from h at w + e to d, which the base gets at w."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Lists, Vector
from fenland.algebra.lists import axpby, combine_
from fenland.algebra.shards import local
from fenland.rules import Gram
from fenland.rules.combine import Coefficient
from fenland.step.ascent import Ascent, measure_there
from fenland.step.gradients import Gradients, collect
from fenland.step.handover import clip_factor
from fenland.step.memory import Setting
from fenland.step.record import StepRecord


@dataclass
class Update:
    """What the base is handed: factor * d, d being in `p.grad`.

    Attributes:
        d: local tensors.
        factor: still to be multiplied in.
        sharded: some parameter is a DTensor.
        finite: 0-d bool tensor, whether this step may be taken.
        record: the step's record.
        corrections: after the base's step, w += lr * weight * c: (local w, c, group).
        weight: of the corrections.
    """

    d: Vector
    factor: Coefficient
    sharded: bool
    finite: Tensor
    record: StepRecord
    corrections: list[tuple[Tensor, Tensor, dict[str, Any]]] = field(default_factory=list)
    weight: float = 1.0


def come_home(asc: Ascent, setting: Setting) -> None:
    """Bring the weights back to w, and on a manifold h with them."""
    ball = setting.choices.ball
    if asc.dual:
        measure_there(asc, setting)
    if ball.curved:
        for p, w in zip(asc.journey.params(), asc.journey.origins(), strict=True):
            if p.grad is not None:
                p.grad = ball.carry(p.grad, p.detach(), w, p)
    asc.journey.back()


def descend(setting: Setting, asc: Ascent) -> Update:
    """Read h from `p.grad`, the weights being back at w, and leave alpha * g + beta * h there, up to a factor.

    Where no ascent ran, d = g (or what the combine makes of g and its kept v) is what `p.grad` holds.
    """
    choices = setting.choices
    if not asc.moved:
        return without_ascent(setting, asc)
    h = collect(setting.groups, to_write=choices.writes_h)
    if choices.writes_h:
        h.make_writable()
    gram = _measure(setting, asc, h)
    if asc.dual:
        gram = replace(gram, dual_g=asc.dual[0], dual_h=asc.dual[1])
    finite = gram.g - gram.g == gram.h - gram.h  # neither is infinite or NaN, in three small operations
    if choices.nonfinite == "base_step" and asc.keeps and not bool(finite):
        asc.g.give_back()
        return without_ascent(setting, asc)
    if choices.combine.keeps:
        _learn(setting, asc, h, choices.combine.learn(gram))
    sharded = h.V.layouts is not None
    alpha, beta = choices.combine.coefficients(gram)
    correction = choices.combine.correction(gram)
    if correction is not None:
        return _corrected(setting, asc, h, correction, finite)
    clip = _clip(setting, gram, alpha, beta)
    if not choices.combine.keeps_g:
        return Update(h.tensors, beta * clip, sharded, finite, asc.record)
    if not h.params:  # no gradient at w + e at all, as if nobody had run backward: there is nothing to combine
        return Update([], 1.0, sharded, finite, asc.record)
    asc.g.make_scratch()
    gs, hs = aligned(asc.g, h)
    combine_(alpha * clip, gs, beta * clip, hs)
    return Update(hs, 1.0, sharded, finite, asc.record)


def without_ascent(setting: Setting, asc: Ascent) -> Update:
    """d = g, which `p.grad` holds, or alpha * g + beta * v where the combine reuses a kept v."""
    choices, g = setting.choices, collect(setting.groups)
    if asc.g_norm is None:  # the source needs no gradient at w: what was run is a plain pass
        asc.g_norm = g.V.norm(g.tensors)
    if asc.record.ascent_grad_norm is None:  # no ascent: h = g and e = 0
        asc.record.grad_norm = asc.record.ascent_grad_norm = asc.g_norm
        asc.record.radius = torch.zeros_like(asc.g_norm)
    finite, sharded = torch.isfinite(asc.g_norm), g.V.layouts is not None
    if choices.combine.keeps and all("v" in setting.memory.kept.get(p, {}) for p in g.params) and g.params:
        v = [setting.memory.kept[p]["v"] for p in g.params]
        gram = Gram(asc.g_norm, g.V.norm(v), g.V.dot(g.tensors, v))
        alpha, beta = choices.combine.reuse(gram)
        clip = _clip(setting, gram, alpha, beta)
        g.make_writable()
        combine_(beta * clip, [x.clone() for x in v], alpha * clip, g.tensors)
        return Update(g.tensors, 1.0, sharded, finite, asc.record)
    if choices.max_norm is not None:
        g.make_writable()
    return Update(g.tensors, clip_factor(choices.max_norm, asc.g_norm), sharded, finite, asc.record)


def _clip(setting: Setting, gram: Gram, alpha: Coefficient, beta: Coefficient) -> Coefficient:
    """The factor that bounds alpha * g + beta * h; its length is asked for only where there is a bound."""
    bound = setting.choices.max_norm
    return 1.0 if bound is None else clip_factor(bound, gram.length(alpha, beta))


def _measure(setting: Setting, asc: Ascent, h: Gradients) -> Gram:
    """The Gram numbers that the combine reads, and those that the record wants."""
    combine = setting.choices.combine
    h_norm = h.V.norm(h.tensors)
    asc.record.ascent_grad_norm = h_norm
    if asc.g_norm is None:
        return Gram(h_norm, h_norm)
    g_norm = asc.g_norm if asc.g_norm.device == h_norm.device else asc.g_norm.to(h_norm.device)
    wanted = "gh" in combine.scalars or (combine.keeps_g and setting.choices.max_norm is not None) or setting.sampled
    if not (asc.keeps and (wanted or combine.keeps_g)):
        return Gram(g_norm, h_norm)
    at_w = dict(zip(asc.g.params, asc.g.tensors, strict=True))
    gs = [at_w[p] if p in at_w else torch.zeros_like(x) for p, x in zip(h.params, h.tensors, strict=True)]
    gram = Gram(g_norm, h_norm, h.V.dot(gs, h.tensors))
    asc.record.cosine = gram.gh * Lists().inverse(gram.g) * Lists().inverse(gram.h)  # type: ignore[operator]
    return gram


def aligned(g: Gradients, h: Gradients) -> tuple[Vector, Vector]:
    """g and h over the parameters that have either: used in only one pass, the other gradient is zero."""
    if len(g.params) == len(h.params) and all(p is q for p, q in zip(g.params, h.params, strict=True)):
        return g.tensors, h.tensors
    at_w, there = dict(zip(g.params, g.tensors, strict=True)), dict(zip(h.params, h.tensors, strict=True))
    for p, whole in zip(g.params, g.wholes, strict=True):
        if p not in there:
            p.grad = torch.zeros_like(whole)
            there[p] = local(p.grad)
    return [at_w[p] if p in at_w else torch.zeros_like(x) for p, x in there.items()], list(there.values())


def _learn(setting: Setting, asc: Ascent, h: Gradients, of: tuple[Coefficient, Coefficient]) -> None:
    """v <- a * g + b * h, kept for the steps that do not ascend."""
    gs, hs = aligned(asc.g, h)
    params = h.params if len(hs) == len(h.params) else h.params + [p for p in asc.g.params if p not in set(h.params)]
    for p, v in zip(params, axpby(of[0], gs, of[1], hs), strict=True):
        setting.memory.kept.setdefault(p, {})["v"] = v


def _corrected(setting: Setting, asc: Ascent, h: Gradients, of: tuple[float, float], finite: Tensor) -> Update:
    """d = g, and a * g + b * h waits in h's buffers until the base has stepped."""
    gs, hs = aligned(asc.g, h)
    group_of = {p: group for group in setting.groups for p in group["params"]}
    owner: Sequence[Tensor] = h.params + [p for p in asc.g.params if p not in set(h.params)]
    weight = of[1] or 1.0  # one pass less than both factors would take
    combine_(of[0] / weight, gs, of[1] / weight, hs)  # in h's own buffers; g stays, it is what the base gets
    asc.g.give_back()
    d = collect(setting.groups)
    factor = clip_factor(setting.choices.max_norm, asc.g_norm) if asc.g_norm is not None else 1.0
    if setting.choices.max_norm is not None:
        d.make_writable()
    waits = [(local(p.detach()), x, group_of[p]) for p, x in zip(owner, hs, strict=True)]
    return Update(d.tensors, factor, d.V.layouts is not None, finite, asc.record, waits, weight)


def correct(update: Update) -> None:
    """w += lr * weight * c, after the base's step."""
    for w, c, group in update.corrections:
        by = group["lr"] * update.weight
        w.addcmul_(c, by) if isinstance(by, Tensor) else w.add_(c, alpha=by)
