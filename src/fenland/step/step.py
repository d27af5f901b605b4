"""One step of one optimizer, from its program's first request to the update.

    step = Step(...).begin()             # the program runs to its first request
    while step.asks:                     # a gradient is wanted: at w, or at w + e
        step.go()                        # the weights go there
        ...                              # somebody runs forward and backward
        step.come_back()                 # w again; the program gets the gradient and says what it wants next
    given = settle(step)                 # d is in p.grad (`base_step.py`)
    ...                                  # the base steps with it, and what the program has put is kept

What a method may ask of `s` (`due`, `climb`, `get`, `put` ...) is in `context.py`, next to this file.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from fenland.algebra import Lazy, Leaf
from fenland.rules.requests import Highest, Update
from fenland.step.context import StepContext
from fenland.step.gradients import Gradient, are_views, collect, refuse_lost_views, release


class Step(StepContext):
    """A step under way.

    Attributes:
        asks: whether the program waits for a gradient (or for the highest of several losses).
    """

    def begin(self) -> Step:
        """Start the program; it runs to its first request. Each micro-batch begins anew, on the same `self`."""
        self.g = self.h = self.last = self.at_hand = None
        self.alive, self.views_lost = [], False
        self.program = self.rules.method.step(weakref.proxy(self))  # a cycle would keep a step that is dropped alive
        self.request = next(self.program)
        self.asks = not isinstance(self.request, Update)
        return self

    def go(self) -> None:
        """Bring the weights to where the gradient is asked for; every `p.grad` is None there."""
        request = self.request
        if request.at is None and not self.alive:
            return  # the first pass at w: the closure's own business
        kept: set[Leaf] = {self.g} if self.keeps_g and self.g is not None else set()
        if request.keep is not None:
            kept |= _leaves_of(request.keep)
        for leaf in self.alive:
            leaf.look()  # who else uses its memory, while `p.grad` still has it
        if self.last is None or (self.g is not None and any(self.g.held)):  # else nobody's views are given up
            self.views_lost = are_views(self.groups)
        if request.at is not None:
            self.perturb(request.at, kept)
        self.alive = release(self.alive, kept, self.groups)
        self.at_hand = None

    def come_back(self, losses: Any = None) -> None:
        """Read the gradient that `p.grad` holds, bring the weights back to w, and let the program go on.

        On a manifold the gradient is its tangent part, carried back to w.
        """
        scale = None if self.scaling is None else self.scaling.factor
        found = self.at_hand = collect(self.groups, scale, self.storage, away=bool(self.perturbation.params))
        if self.views_lost and not self.reduction.ranks_differ:
            refuse_lost_views(found)
        if self.rules.ball.geometry is not None:
            self.to_tangent(found)
        if self.request.dual:
            moving = found.only(self.moving(found))
            found.dual = moving.dot(self.rules.ball.steepest(moving, self))
        found.losses = losses
        if self.perturbation.params:
            self.perturbation.undo()
        self.answer(found)

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
        self.asks = not isinstance(self.request, Update)

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

    def close(self) -> None:
        """Give the step up, or end it: the weights are at w."""
        if self.perturbation.params:
            self.perturbation.undo()
        self.program.close()
        self.alive, self.request = [], Update(self.request.d) if isinstance(self.request, Update) else None
        self.g = self.h = self.last = None


def _leaves_of(keep: Lazy | tuple[Lazy, ...] | None) -> set[Leaf]:
    if keep is None:
        return set()
    return {x for v in (keep if isinstance(keep, tuple) else (keep,)) for _, x in v.terms}
