"""The first half of a step: from g at w to the ascent point w + e."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fenland.algebra import Lists, Scalar, Vector
from fenland.algebra.lists import scale_
from fenland.algebra.shards import layouts, local
from fenland.rules import Ball, Steepest
from fenland.step.gradients import Gradients, collect
from fenland.step.memory import Setting
from fenland.step.precision import measure, warn_of_rounding
from fenland.step.record import StepRecord
from fenland.step.scaling import inverse_scale
from fenland.step.storage import FREE
from fenland.step.travel import Journey


@dataclass
class Ascent:
    """A step between its two halves.

    Attributes:
        journey: the weights' way to w + e; it brings them back.
        g: gradients at w; their tensors are spent unless `keeps`.
        going: positions of the parameters that move.
        g_norm: ||g||_2, unscaled; None where the source needs no gradient at w.
        moved: False where no ascent runs (rho = 0, or not on this step): then d = g.
        keeps: g's tensors are intact at the way back.
        unscaled: a loss scale has left g's tensors already.
        record: what is known so far.
        dual: the ball's dual norms of g at w and of h at w + e, where the combine reads them.
    """

    journey: Journey
    g: Gradients
    going: list[int]
    g_norm: Scalar | None
    moved: bool
    keeps: bool
    unscaled: bool
    record: StepRecord
    dual: list[Scalar] = field(default_factory=list)


def look(setting: Setting) -> Ascent:
    """Read g from `p.grad`, measure it and decide whether to ascend. Nothing moves yet."""
    choices, memory = setting.choices, setting.memory
    g = collect(setting.groups, to_write=choices.combine.keeps_g or not choices.keeps_g)
    if choices.ball.curved:
        _make_tangent(g, choices.ball)
    inverse = inverse_scale(setting.scaler, g.tensors)
    unscaled = inverse is not None and choices.needs_true_scale
    if inverse is not None and unscaled:
        scale_(inverse, g.tensors)
    measured = g.V.norm(g.tensors)
    g_norm = measured if inverse is None or unscaled else measured * inverse
    going = setting.moving(g.params, g.groups)
    due = bool(going) and choices.when.ascends(memory.count, g_norm, memory.scalars)
    keeps = choices.keeps_g or setting.sampled or not due
    return Ascent(setting.journey(), g, going, g_norm, due, keeps, unscaled, StepRecord(grad_norm=g_norm))


def look_ahead(setting: Setting) -> Ascent:
    """The start of a step whose source needs no gradient at w: the base's own vectors are what it climbs along."""
    choices, memory = setting.choices, setting.memory
    params, groups = [], []
    for k, group in enumerate(setting.groups):
        for p in group["params"]:
            known = not choices.source.reads_base or _base_vector(setting, p) is not None
            if p.requires_grad and known:
                params.append(p)
                groups.append(k)
    g = Gradients(params, groups, [], [], Lists(layouts(params)))
    going = setting.moving(params, groups)
    due = bool(going) and choices.when.ascends(memory.count, torch.zeros(()), memory.scalars)
    return Ascent(setting.journey(), g, going, None, due, False, False, StepRecord())


def depart(asc: Ascent, setting: Setting) -> None:
    """Bring the weights to w + e; g's buffers are spent unless the ascent keeps them."""
    g, ball = asc.g, setting.choices.ball
    if asc.keeps:
        g.secure()
    part = _part(g, source_vector(setting, g), asc.going)
    asc.journey.plan(part.params)
    w = part.weights() if ball.reads_w else []
    at = setting.at(part.params, part.V)
    if setting.choices.combine.reads_dual:
        asc.dual.append(ball.dual_norm(_part(g, g.tensors, asc.going).tensors, w, at))
    if part.tensors is g.tensors and not (asc.keeps or setting.memory.kept) and g.held.count(FREE) == len(g.held):
        at = replace(at, spend=True)
    best = ball.steepest(part.tensors, w, at)
    rhos = [setting.radii[k] * setting.choices.source.share for k in part.groups]
    steps = _steps(best, rhos)
    asc.record.radius = _radius(ball, best, part, rhos, steps)
    if ball.curved:
        each = steps if isinstance(steps, list) else [steps] * len(w)
        points = zip(w, best.direction, each, part.params, strict=True)
        asc.journey.arrive([ball.arrive(x, u * s, p) for x, u, s, p in points])
    else:
        owned = [False] * len(rhos) if setting.sampled else _owned(asc, best.direction, setting)
        asc.journey.depart(best.direction, steps, owned, whole=best.direction is g.tensors)
    if setting.sampled:
        wanted = None if ball.curved else (best.direction, steps)
        measure(asc.record, part.weights(), asc.journey.origins(), wanted, part.V.layouts)
        warn_of_rounding(asc.record, part.params, setting.base)
    if not asc.keeps:
        g.release()


def advance(asc: Ascent, setting: Setting) -> None:
    """One more inner step: from the gradient at w + e, which `p.grad` holds, to a new w + e."""
    choices = setting.choices
    here = collect(setting.groups)
    grads = dict(zip(here.params, here.tensors, strict=True))
    params = asc.journey.params()
    group_of = {p: k for k, group in enumerate(setting.groups) for p in group["params"]}
    w = asc.journey.origins()
    e = [local(p.detach()) - x for p, x in zip(params, w, strict=True)]
    asc.journey.back()
    V = Lists(layouts(params))
    at = setting.at(params, V)
    a = [grads[p] if p in grads else torch.zeros_like(x) for p, x in zip(params, w, strict=True)]
    best = choices.ball.steepest(a, w, at)
    rhos = [setting.radii[group_of[p]] for p in params]
    e = [x / rho for x, rho in zip(e, rhos, strict=True)]
    further = choices.source.advance(e, at.V.scale(best.scale, best.direction), at)
    asc.record.radius = V.norm([x * rho for x, rho in zip(further, rhos, strict=True)])
    del w, e
    asc.journey.plan(params)
    steps = _steps(Steepest(further, torch.ones_like(best.scale)), rhos)
    asc.journey.depart(further, steps, [not setting.sampled] * len(params))
    if setting.sampled:
        there = [local(p.detach()) for p in params]
        measure(asc.record, there, asc.journey.origins(), (further, steps), V.layouts)


def measure_there(asc: Ascent, setting: Setting) -> None:
    """The ball's dual norm of h at w + e, where the combine reads it; a loss scale is taken out."""
    moved = {p: None for p in asc.journey.params() if p.grad is not None}
    h = collect([{"params": list(moved)}])
    norm = setting.choices.ball.dual_norm(h.tensors, h.weights(), setting.at(h.params, h.V))
    inverse = inverse_scale(setting.scaler, h.tensors)
    asc.dual.append(norm if inverse is None else norm * inverse)


def begin_state(setting: Setting, g: Gradients) -> None:
    """Make the kept vectors of parameters that are met for the first time."""
    source, kept = setting.choices.source, setting.memory.kept
    if not source.keeps:  # and g may be empty
        return
    for p, x in zip(g.params, g.tensors, strict=True):
        if source.keeps[0] not in kept.get(p, {}):
            kept.setdefault(p, {}).update({name: vector[0] for name, vector in source.start([x]).items()})


def source_vector(setting: Setting, g: Gradients) -> Vector:
    """a, with the state that the source keeps or reads from the base."""
    source, kept = setting.choices.source, setting.memory.kept
    if not source.keeps and not source.reads_base:
        return source.vector(g.tensors, {}, setting.at(g.params, g.V))
    fresh = [not source.keeps or source.keeps[0] not in kept.get(p, {}) for p in g.params]
    begin_state(setting, g)
    state = {name: [kept[p][name] for p in g.params] for name in source.keeps}
    if source.reads_base:
        state["base"] = [_base_vector(setting, p) for p in g.params]  # type: ignore[misc]
    a = source.vector(g.tensors, state, setting.at(g.params, g.V, fresh))
    for name in source.keeps:
        for p, x in zip(g.params, state[name], strict=True):
            kept[p][name] = x
    return a


def _base_vector(setting: Setting, p: Tensor) -> Tensor | None:
    known = setting.base.state.get(p, {})
    for name in setting.choices.source.reads_base:
        if known.get(name) is not None:
            return local(known[name])
    return None


def _make_tangent(g: Gradients, ball: Ball) -> None:
    """On a manifold the gradient is its tangent part: nothing else is climbed along or measured."""
    for i, p in enumerate(g.params):
        flat = ball.tangent(g.tensors[i], p.detach(), p)
        if flat is not g.tensors[i]:
            p.grad = g.wholes[i] = g.tensors[i] = flat


def _owned(asc: Ascent, direction: Vector, setting: Setting) -> list[bool]:
    """Whether each direction's buffer may be overwritten: fresh ones, and g's where nobody needs it."""
    kept = setting.memory.kept
    if direction is asc.g.tensors and not kept and not setting.choices.source.reads_base:
        return [False] * len(direction) if asc.keeps else [held == FREE for held in asc.g.held]
    free = dict.fromkeys(map(id, asc.g.tensors), False)
    if not asc.keeps:
        free = {id(x): held == FREE for x, held in zip(asc.g.tensors, asc.g.held, strict=True)}
    free |= {id(x): False for vectors in kept.values() for x in vectors.values()}
    if setting.choices.source.reads_base:
        free |= {id(_base_vector(setting, p)): False for p in asc.g.params}
    return [free.get(id(u), True) for u in direction]


def _steps(best: Steepest, rhos: list[float]) -> Scalar | list[Scalar]:
    """rho * scale: one scalar where all groups share rho."""
    if rhos.count(rhos[0]) == len(rhos):
        return best.scale * rhos[0]
    by_rho = {rho: best.scale * rho for rho in set(rhos)}
    return [by_rho[rho] for rho in rhos]


def _radius(ball: Ball, best: Steepest, part: Gradients, rhos: list[float], steps: Scalar | list[Scalar]) -> Scalar:
    """||e|| in the ball's norm; Euclidean where e is a multiple of a, whose norms are known."""
    if not ball.along_a:
        return torch.full_like(best.scale, max(rhos)) if best.length is None else best.length * max(rhos)
    if isinstance(steps, Tensor):
        return steps * part.V.norm(part.tensors)
    scaled = [x * rho for x, rho in zip(part.V.per_tensor_norms(part.tensors), rhos, strict=True)]
    return best.scale * Lists(part.V.layouts).whole_norm(scaled)


def _part(g: Gradients, a: Vector, going: list[int]) -> Gradients:
    """The parameters that move, with their ascent vector; g's own algebra where that is all of them."""
    if len(going) == len(a):
        return Gradients(g.params, g.groups, a, g.held, g.V)
    kinds = None if g.V.layouts is None else [g.V.layouts[i] for i in going]
    pick = [g.params[i] for i in going], [g.groups[i] for i in going], [a[i] for i in going]
    return Gradients(*pick, [], Lists(kinds))
