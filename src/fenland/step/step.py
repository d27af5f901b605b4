"""One step of one optimizer, from its program's first request to the update.

    step = Step(...)                     # the program runs to its first request
    while step.asks:                     # a gradient is wanted: at w, or at w + e
        step.go()                        # the weights go there
        ...                              # somebody runs forward and backward
        step.come_back()                 # w again; the program gets the gradient and says what it wants next
    given = step.settle()                # d is in p.grad
    ...                                  # the base steps with it
    step.commit()                        # what the program has put is kept

What a method may ask of `s` (`due`, `climb`, `get`, `put` ...) is in `context.py`, next to this file.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from fenland.algebra import Lazy, Leaf
from fenland.algebra.lazy import is_number
from fenland.rules.requests import Climb, Highest, Update
from fenland.step.base_step import (
    Handover,
    all_finite,
    base_multiplies,
    clip_factor,
    corrections,
    form,
    is_finite,
    left_to_base,
    multiply_,
    near_overflow,
)
from fenland.step.context import StepContext
from fenland.step.gradients import Gradient, collect, refuse_lost_views


class Step(StepContext):
    """A step under way."""

    def begin(self) -> Step:
        """Start the program; it runs to its first request. Each micro-batch begins anew, on the same `self`."""
        self.g = self.h = self.last = self.at_hand = None
        self.alive = []
        self.program = self.rules.method.step(weakref.proxy(self))  # a cycle would keep a dropped step alive
        self.request = next(self.program)
        return self

    @property
    def asks(self) -> bool:
        """Whether the program waits for a gradient (or for the highest of several losses)."""
        return not isinstance(self.request, Update)

    def go(self) -> None:
        """Bring the weights to where the gradient is asked for; every `p.grad` is None there."""
        request = self.request
        if request.at is None and not self.alive:
            return  # the first pass at w: the closure's own business
        kept = _leaves_of(request.keep) | ({self.g} if self.keeps_g and self.g is not None else set())
        if request.at is not None:
            self._perturb(request.at, kept)
        for leaf in self.alive:
            leaf.own() if leaf in kept else leaf.empty()
        self.alive = [leaf for leaf in self.alive if leaf in kept]
        self.drop()

    def come_back(self, losses: Any = None) -> None:
        """Read the gradient, bring the weights back to w, and let the program go on."""
        answer = self.read()
        answer.losses = losses
        self.perturbation.undo()
        self.answer(answer)

    def read(self) -> Gradient:
        """The gradient that `p.grad` holds, as one at w: on a manifold its tangent part, carried back to w."""
        found = self.at_hand = collect(self.groups, self.scaling.factor)
        if self.g is not None and any(self.g.held) and not self.reduction.ranks_differ:
            refuse_lost_views(self.g, found)
        if self.rules.ball.geometry is not None:
            self.to_tangent(found)
        if self.request.dual:
            moving = found.only(self.moving(found))
            found.dual = moving.dot(self.rules.ball.steepest(moving, self))
        return found

    def answer(self, found: Any) -> None:
        """Hand the program what it asked for."""
        if isinstance(found, Gradient):
            self.last = self.request
            self.alive.append(found)
            if self.request.at is None:
                self.g = found if self.g is None else self.g
            else:
                self.h = found
        self.request = self.program.send(found)

    def _perturb(self, at: Climb | Lazy, kept: set[Leaf]) -> None:
        """Form w + e, in the memory of a gradient that nobody needs where there is one."""
        owned = {leaf: leaf.owned for leaf in kept | ({self.g} if self.sampled and self.g is not None else set())}
        for leaf in owned:
            leaf.owned = None
        e = self.displacement(at)
        if self.rules.ball.geometry is not None:
            self.retract(e)
        else:
            c, x = e.terms[0] if len(e.terms) == 1 else (1.0, e.form())
            mine = not self.sampled and x.owned is not None
            raw = x.raw if x.raw is not None else x.tensors
            steps = self.as_steps(c, x)
            flags = x.owned if mine and x.owned is not None else [False] * len(raw)
            self.perturbation.apply(list(x.params or ()), raw, steps, flags, whole=isinstance(x, Gradient))
            if self.sampled:
                self.measure(raw, steps, x.V)
        for leaf, before in owned.items():
            leaf.owned = before

    def search(self, evaluate: Any) -> None:
        """Answer `Highest`: the key whose point has the highest loss; weights and gradients are as before."""
        request: Highest = self.request
        best, found = -float("inf"), next(iter(request.candidates))  # where no loss is a number
        self.drop()
        for key, e in request.candidates.items():
            formed = e.form()
            one = torch.ones_like(formed.norm)
            ours = formed is not e.terms[0][1]  # else it is a gradient that the rule goes on with
            self.perturbation.apply(list(formed.params or ()), formed.tensors, one, [ours] * len(formed.tensors))
            loss = self.loss_of_all(evaluate())
            self.perturbation.undo()
            self.drop()
            if loss > best:
                best, found = loss, key
        self.answer(found)

    def settle(self, clip: bool = True, last: bool = True, whole: bool = False) -> Handover:
        """Leave d in `p.grad`, up to a factor (`whole`: without). `last` is False for one of several micro-batches."""
        d, after = self.request.d, self.request.after
        if self.h is not None and not self.h.params:  # no backward at w + e, so there is nothing to combine
            d, after = self.h, None
        leaves = [x for x in (self.g, self.h) if x is not None]
        finite, look = is_finite(d, leaves, self.host)
        if self.rules.nonfinite == "base_step" and self.g is not None and not bool(finite):
            d, after, finite, look = self.g, None, *is_finite(self.g, [self.g], self.host)
        self.fill_record()
        averaged = self.reduction.must_average(self.last)
        added = [] if after is None else self.corrections(after, averaged)
        carrier = self.carrier(d)
        if last and not averaged:
            self.scaling.unscale(self.base_optimizer, carrier, [x for x in leaves if x is not carrier])
        factor = clip_factor(self.rules.max_norm, d.norm) if clip and not averaged else 1.0
        formed, factor = form(d, self.groups, factor)
        if not is_number(factor, 1.0):
            formed.make_writable()
        if averaged or look or whole or not last or not base_multiplies(formed, factor, self.base_optimizer):
            multiply_(factor, formed.raw or [])
            formed.factor, factor = None, 1.0
        if look:
            finite = all_finite(formed.raw or [])
        if (self.vectors or added) and self.host and near_overflow(leaves):
            kept = [x for values in self.vectors.values() for x in values.values()]
            finite = finite & all_finite([*kept, *(c for _, c, _ in added)])
        if averaged:
            formed, factor, finite = self._average(clip, last, whole)
        elif self.reduction.ranks_differ:
            finite = torch.isfinite(leaves[-1].norm)  # g is each rank's own, h everybody's
        self.record.skipped = ~finite
        return Handover(formed.raw or [], factor, finite, added)

    def _average(self, clip: bool, last: bool, whole: bool) -> tuple[Gradient, Any, Any]:
        """Average what `p.grad` holds over the ranks; with what is left to multiply in, and whether it is finite."""
        formed = self.reduction.average(self.groups)
        length = formed.norm
        factor = clip_factor(self.rules.max_norm if clip else None, length)
        if whole:
            multiply_(factor, formed.raw or [])
            factor = 1.0
        factor = left_to_base(formed, factor, self.base_optimizer)
        if last:
            self.scaling.unscale(self.base_optimizer, formed, ())
        return formed, factor, torch.isfinite(length)

    def corrections(self, after: Lazy, averaged: bool) -> list[Any]:
        """The update's `after`, formed before d is."""
        if averaged:
            raise ValueError(
                'sync = "local": a method that corrects w after the base\'s step (decoupled WSAM) would add each '
                'rank\'s own correction; use sync="global"'
            )
        return corrections(after, self.groups)

    def close(self) -> None:
        """Give the step up, or end it: the weights are at w."""
        self.perturbation.undo()
        self.program.close()
        self.alive, self.request = [], Update(self.request.d) if isinstance(self.request, Update) else None
        self.g = self.h = self.last = None


def _leaves_of(keep: Lazy | tuple[Lazy, ...] | None) -> set[Leaf]:
    if keep is None:
        return set()
    return {x for v in (keep if isinstance(keep, tuple) else (keep,)) for _, x in v.terms}
