"""The two halves of a step as functions: from g to w + e, and from h to d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Lists, Scalar, Vector
from fenland.algebra.lists import combine_, scale_
from fenland.rules import AtAscentPoint, Ball, Combine, Gradient, Gram, Source, Steepest, When
from fenland.rules.combine import Coefficient
from fenland.step.gradients import Gradients, collect
from fenland.step.handover import clip_factor
from fenland.step.record import StepRecord
from fenland.step.scaling import inverse_scale
from fenland.step.travel import FREE, Journey

Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Choices:
    """The five choices and the options of a step, checked by the optimizer."""

    ball: Ball
    source: Source
    combine: Combine
    when: When
    max_norm: float | None
    nonfinite: str
    travel: str
    record_every: int | None

    @property
    def keeps_g(self) -> bool:
        """Whether g must survive the ascent: for d, or as what "base_step" falls back on."""
        return self.combine.keeps_g or self.nonfinite == "base_step"

    @property
    def writes_h(self) -> bool:
        """Whether d is formed in h's buffers."""
        return self.max_norm is not None or not isinstance(self.combine, AtAscentPoint)

    @property
    def needs_true_scale(self) -> bool:
        """Whether a loss scale must leave g before the ascent (else it leaves with the norm)."""
        return (
            not self.ball.scale_free
            or not isinstance(self.source, Gradient)
            or self.keeps_g
            or self.when.looks_at_gradient
        )


@dataclass
class Ascent:
    """A step between its two halves.

    Attributes:
        journey: the weights' way to w + e; it brings them back.
        g: gradients at w; their tensors are spent unless `keeps`.
        g_norm: ||g||_2, unscaled.
        moved: False where no ascent runs (rho = 0, or not on this step): then d = g.
        keeps: g's tensors are intact at the way back.
        sampled: this step measures cosine and realised radius.
        unscaled: a loss scale has left g's tensors already.
        record: what is known so far.
    """

    journey: Journey
    g: Gradients
    g_norm: Scalar
    moved: bool
    keeps: bool
    sampled: bool
    unscaled: bool
    record: StepRecord


@dataclass
class Update:
    """What the base is handed: factor * d, d being in `p.grad`.

    Attributes:
        d: local tensors.
        factor: still to be multiplied in.
        sharded: some parameter is a DTensor.
        finite: 0-d bool tensor, whether this step may be taken.
    """

    d: Vector
    factor: Coefficient
    sharded: bool
    finite: Tensor
    record: StepRecord


def look(
    choices: Choices,
    groups: Groups,
    radii: Sequence[float],
    count: int,
    memory: dict[str, float],
    scaler: Any = None,
) -> Ascent:
    """Read g from `p.grad`, measure it and decide whether to ascend. Nothing moves yet."""
    g = collect(groups)
    inverse = inverse_scale(scaler, g.tensors)
    unscaled = inverse is not None and choices.needs_true_scale
    if inverse is not None and unscaled:
        scale_(inverse, g.tensors)
    measured = g.V.norm(g.tensors)
    g_norm = measured if inverse is None or unscaled else measured * inverse
    sampled = choices.record_every is not None and count % choices.record_every == 0
    due = any(radii[k] > 0 for k in g.groups) and choices.when.ascends(count, g_norm, memory)
    keeps = choices.keeps_g or sampled or not due
    return Ascent(Journey(choices.travel), g, g_norm, due, keeps, sampled, unscaled, StepRecord(grad_norm=g_norm))


def depart(asc: Ascent, choices: Choices, radii: Sequence[float], kept: dict[Tensor, dict[str, Tensor]]) -> None:
    """Bring the weights to w + e; g's buffers are spent unless the ascent keeps them."""
    g = asc.g
    if asc.keeps:
        g.secure()
    going = [i for i, k in enumerate(g.groups) if radii[k] > 0]
    part = _part(g, _source_vector(choices.source, g, kept), going)
    asc.journey.plan(part.params)
    w = part.weights()
    best = choices.ball.steepest(part.tensors, w, part.V)
    rhos = [radii[k] for k in part.groups]
    asc.record.radius = _radius(choices.ball, best, part, rhos)
    asc.journey.depart(best.direction, _steps(best, rhos), _owned(asc, best.direction, kept))
    if asc.sampled:
        e = [x - y for x, y in zip(part.weights(), asc.journey.origins(), strict=True)]
        asc.record.realised_radius = Lists(part.V.layouts).norm(e)
    if not asc.keeps:
        g.release()


def _owned(asc: Ascent, direction: Vector, kept: dict[Tensor, dict[str, Tensor]]) -> list[bool]:
    """Whether each direction's buffer may be overwritten: fresh ones, and g's where nobody needs it."""
    free = {id(x): held == FREE and not asc.keeps for x, held in zip(asc.g.tensors, asc.g.held, strict=True)}
    free |= {id(x): False for vectors in kept.values() for x in vectors.values()}
    return [free.get(id(u), True) for u in direction]


def _steps(best: Steepest, rhos: list[float]) -> Scalar | list[Scalar]:
    """rho * scale: one scalar where all groups share rho."""
    if all(rho == rhos[0] for rho in rhos):
        return best.scale * rhos[0]
    by_rho = {rho: best.scale * rho for rho in set(rhos)}
    return [by_rho[rho] for rho in rhos]


def begin_state(source: Source, g: Gradients, kept: dict[Tensor, dict[str, Tensor]]) -> None:
    """Make the kept vectors of parameters that are met for the first time."""
    for p, x in zip(g.params, g.tensors, strict=True):
        if source.keeps and p not in kept:
            kept[p] = {name: vector[0] for name, vector in source.start([x]).items()}


def _radius(ball: Ball, best: Steepest, part: Gradients, rhos: list[float]) -> Scalar:
    """||e|| in the ball's norm; Euclidean where e is a multiple of a, whose norms are known."""
    if not ball.along_a:
        return torch.full_like(best.scale, max(rhos))
    if all(rho == rhos[0] for rho in rhos):
        return best.scale * rhos[0] * part.V.norm(part.tensors)
    scaled = [x * rho for x, rho in zip(part.V.per_tensor_norms(part.tensors), rhos, strict=True)]
    return best.scale * Lists(part.V.layouts).whole_norm(scaled)


def _source_vector(source: Source, g: Gradients, kept: dict[Tensor, dict[str, Tensor]]) -> Vector:
    if not source.keeps:
        return source.vector(g.tensors, {}, g.V)
    begin_state(source, g, kept)
    state = {name: [kept[p][name] for p in g.params] for name in source.keeps}
    return source.vector(g.tensors, state, g.V)


def _part(g: Gradients, a: Vector, going: list[int]) -> Gradients:
    """The parameters that move, with their ascent vector; g's own algebra where that is all of them."""
    if len(going) == len(a):
        return Gradients(g.params, g.groups, a, g.held, g.V)
    layouts = None if g.V.layouts is None else [g.V.layouts[i] for i in going]
    pick = [g.params[i] for i in going], [g.groups[i] for i in going], [a[i] for i in going], [g.held[i] for i in going]
    return Gradients(*pick, Lists(layouts))


def descend(choices: Choices, asc: Ascent, groups: Groups) -> Update:
    """Read h from `p.grad`, the weights being back at w, and leave alpha * g + beta * h there, up to a factor.

    Where no ascent ran, d = g is what `p.grad` holds.
    """
    if not asc.moved:
        return _plain(choices, asc)
    h = collect(groups)
    if choices.writes_h:
        h.make_writable()
    h_norm = h.V.norm(h.tensors)
    asc.record.ascent_grad_norm = h_norm
    gram = Gram(_on(asc.g_norm, h_norm), h_norm)
    finite = torch.isfinite(gram.g) & torch.isfinite(gram.h)
    pairs = _Pairs(asc.g, h) if asc.keeps else None
    wants_gh = "gh" in choices.combine.scalars or (choices.combine.keeps_g and choices.max_norm is not None)
    if pairs is not None and (wants_gh or asc.sampled):
        gram = Gram(gram.g, gram.h, pairs.dot())
        asc.record.cosine = gram.gh * _inverse(gram.g) * _inverse(gram.h)  # type: ignore[operator]
    if choices.nonfinite == "base_step" and not bool(finite):
        asc.g.give_back()
        return _plain(choices, asc)
    alpha, beta = choices.combine.coefficients(gram)
    clip = clip_factor(choices.max_norm, gram.length(alpha, beta)) if choices.max_norm is not None else 1.0
    sharded = h.V.layouts is not None
    if choices.combine.keeps_g and pairs is not None:
        return Update(pairs.combine(alpha * clip, beta * clip), 1.0, sharded, finite, asc.record)
    return Update(h.tensors, beta * clip, sharded, finite, asc.record)


def _plain(choices: Choices, asc: Ascent) -> Update:
    """d = g, which `p.grad` holds: no ascent, so h = g and e = 0 unless h was seen."""
    if asc.record.ascent_grad_norm is None:
        asc.record.ascent_grad_norm = asc.g_norm
        asc.record.radius = torch.zeros_like(asc.g_norm)
    if choices.max_norm is not None:
        asc.g.make_writable()
    finite = torch.isfinite(asc.g_norm)
    return Update(
        asc.g.tensors, clip_factor(choices.max_norm, asc.g_norm), asc.g.V.layouts is not None, finite, asc.record
    )


class _Pairs:
    """g and h over the parameters that have either: used in only one pass, a parameter's other gradient is zero."""

    def __init__(self, g: Gradients, h: Gradients) -> None:
        self.g, self.h = g, h
        self.same = len(g.params) == len(h.params) and all(p is q for p, q in zip(g.params, h.params, strict=True))

    def dot(self) -> Scalar:
        if self.same:
            return self.h.V.dot(self.g.tensors, self.h.tensors)
        at_w = dict(zip(self.g.params, self.g.tensors, strict=True))
        ours = [
            at_w[p] if p in at_w else torch.zeros_like(x) for p, x in zip(self.h.params, self.h.tensors, strict=True)
        ]
        return self.h.V.dot(ours, self.h.tensors)

    def combine(self, alpha: Coefficient, beta: Coefficient) -> Vector:
        """Leave alpha * g + beta * h in `p.grad`."""
        if self.same:
            combine_(alpha, self.g.tensors, beta, self.h.tensors)
            return self.h.tensors
        at_w = {p: (x, whole) for p, x, whole in zip(self.g.params, self.g.tensors, self.g.wholes, strict=True)}
        for p, x in zip(self.h.params, self.h.tensors, strict=True):
            x.mul_(beta)
            if p in at_w:
                x.add_(at_w.pop(p)[0] * alpha)
        for p, (x, whole) in at_w.items():
            x.mul_(alpha)
            p.grad = whole
        return self.h.tensors + [x for x, _ in at_w.values()]


def _inverse(s: Scalar) -> Scalar:
    return Lists().inverse(s)


def _on(s: Scalar, like: Scalar) -> Scalar:
    return s if s.device == like.device else s.to(like.device)
