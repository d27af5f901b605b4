"""A closure evaluates, called at w and again at w + e, or one closure a micro-batch (m-SAM).

The runners are a list, one an optimizer: a joint step is the same course with more than one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import repeat
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor

from fenland.rules.requests import Grad, Highest
from fenland.step.base_step import Handover, base_multiplies, clip_factor, multiply_in, settle
from fenland.step.drivers.evaluation import Closure, PerSample, evaluate, refuse_inner_step
from fenland.step.gradients import Scaled, collect, own_copy
from fenland.step.guards.snapshots import Snapshot
from fenland.step.runner import Runner
from fenland.step.step import Step

_asks, _ranks_differ = attrgetter("asks"), attrgetter("reduction.ranks_differ")
_TOGETHER = nullcontext()


def run_closure(runners: Sequence[Runner], closure: Closure, scalings: Sequence[Scaled | None]) -> Any:
    """One step of each optimizer, the closure being called at w and again at w + e; returns what it returned at w.

    On any exception before the base steps, everything is as before.
    """
    return _whole_step(runners, scalings, _Passes(runners, closure).run)


def run_micro_batches(runner: Runner, closures: Sequence[Closure], scaling: Scaled | None) -> list[Any]:
    """m-SAM: each closure has its own ascent, and d is the mean of theirs.

    One ascent is held at a time, so the memory is that of one micro-batch and one accumulator of d. Source: Foret et
    al. 2021, arXiv 2010.01412, section 4.1 (m-sharpness); Andriushchenko and Flammarion 2022, arXiv 2206.06232.
    """
    values: list[Any] = []

    def passes(steps: list[Step], before: list[Snapshot]) -> list[Any]:
        step, finite = steps[0], []
        total: dict[Tensor, Tensor] = {}
        for closure in closures:
            if values:
                step.begin()
            step.drop()
            values.append(_Passes([runner], closure).run([step], [runner.guard.take()] if values else before))
            given = settle(step, clip=False, last=False)
            if given.after:
                raise ValueError("a method that corrects w after the base's step (decoupled WSAM) takes one closure")
            finite.append(given.finite)
            for p in (p for group in runner.base.param_groups for p in group["params"] if p.grad is not None):
                total[p] = own_copy(p.grad) if p not in total else total[p].add_(p.grad)
                p.grad = None
        for p, x in total.items():
            p.grad = x.div_(len(closures))
        d = collect(runner.base.param_groups)
        if step.scaling is not None:
            step.scaling.unscale(runner.base, d, ())
        clip: Any = 1.0 if runner.rules.max_norm is None else clip_factor(runner.rules.max_norm, d)
        ok = torch.isfinite(d.norm)
        for one in finite:
            ok = ok & one
        step.record.finite = ok
        if not base_multiplies(d, clip, runner.base):
            multiply_in(d, clip)
            clip = 1.0
        step.settled = Handover(d.raw or [], clip, ok)
        return values

    return _whole_step([runner], [scaling], passes)  # type: ignore[no-any-return]


def _whole_step(
    runners: Sequence[Runner], scalings: Sequence[Scaled | None], passes: Callable[[list[Step], list[Snapshot]], Any]
) -> Any:
    """Everything around the passes of a closure: guards before, the decision and the bases' steps after them."""
    before: list[Snapshot] = []
    for runner in runners:
        if runner.pending is not None:
            runner.refuse("step", busy=True)
        before.append(runner.guard.take())
    steps: list[Step] = []
    bases: list[Any] = [base for runner in runners for base in runner.bases]
    hooked = [base._optimizer_step_pre_hooks for base in bases if hasattr(base, "_optimizer_step_pre_hooks")]
    try:
        for runner, scaling in zip(runners, scalings, strict=True):
            for watch in runner.watches:
                watch.quiet = True  # a closure's passes begin where it is called
            steps.append(runner.new_step(scaling))
        try:
            for hooks in hooked:
                hooks[refuse_inner_step] = refuse_inner_step
            value = passes(steps, before)
        finally:
            for hooks in hooked:  # before the end of the step, where a fused base without hooks takes a factor itself
                hooks.pop(refuse_inner_step, None)
        for step in steps:
            step.settled = step.settled or settle(step)
        decisions = [runner.decide(step, then) for runner, step, then in zip(runners, steps, before, strict=True)]
    except BaseException:
        for runner, then in zip(runners, before, strict=True):
            runner.roll_back(steps, then)
        raise
    finish(runners, steps, decisions, before)
    return value


class _Passes:
    """All passes of one batch: each gradient that is asked for is one call of the closure, shared by all steps."""

    def __init__(self, runners: Sequence[Runner], closure: Closure) -> None:
        self.runners = runners
        self.samples = PerSample(closure, runners[0].rules.method) if runners[0].per_sample else None
        self.call = partial(evaluate, closure) if self.samples is None else self.samples
        self.before: Sequence[Snapshot] = ()
        self.made = 0

    def run(self, steps: list[Step], before: Sequence[Snapshot]) -> Any:
        """Answer the programs until each has come to its update; returns what the closure returned at w.

        Args:
            steps: the runners' steps, in their order.
            before: what their guards found before pass 1.
        """
        self.before = before
        if self.samples is not None:
            self.samples.scaling = steps[0].scaling
        looking = [runner.advanced for runner in self.runners if runner.advanced is not None]
        for advanced in looking:
            advanced.note(0, alone=True)
        value: Any = None
        while asking := list(filter(_asks, steps)):
            for runner in self.runners if self.made == 1 else ():
                runner.end_first_pass(guarded=True, two_calls=False)
            for runner, then in zip(self.runners, before, strict=True) if self.made else ():
                runner.guard.bring_back(then, runner.after_first if self.made == 1 else None)
            searching = [step for step in asking if isinstance(step.request, Highest)]
            if searching:
                self.search(searching[0], [step for step in steps if step is not searching[0]])
                continue
            got = self.one(steps, asking)
            value = value if self.made else got
            self.made += 1
            for advanced in looking:
                advanced.note(self.made, alone=True)
        for runner in self.runners if self.made > 1 else ():
            runner.end_second_pass(moved=True, two_calls=False)
        return value

    def search(self, step: Step, others: Sequence[Step]) -> None:
        """Answer a request for the highest of several losses; the gradients of the other steps stay as they are."""
        for other in others:  # each look of the search runs backward, over the parameters of all
            for leaf in other.alive:
                leaf.look()
            other.drop()
        step.search(self.search_again)
        for other in others:
            other.drop()

    def search_again(self) -> Tensor | None:
        """The loss once more, for a search, from the buffers and random numbers that pass 1 started from."""
        for runner, then in zip(self.runners, self.before, strict=True):
            runner.guard.bring_back(then)
        return self.call()[1]

    def one(self, steps: list[Step], asking: list[Step]) -> Any:
        """Go to where the gradient is asked for, run the closure, come back; the steps that ask get it."""
        request = asking[0].request
        first = self.runners[0]
        looks = first.loss_scale.due and (self.made > 0 or request.at is not None)
        for step in steps:
            step.go() if step in asking else step.drop()
        if looks:
            first.watch_loss_scale(steps[0])
        with _apart(self.runners, request) if any(map(_ranks_differ, self.runners)) else _TOGETHER:
            value, loss = self.call(request) if self.made else first.stale.watched(self.call, request, self.runners)
        if looks:
            first.loss_scale.refuse(two_calls=False)
        for step in asking:
            away = bool(step.perturbation.params)
            step.come_back(None if self.samples is None else self.samples.losses)
            step.record.loss_ascent = loss if away else step.record.loss_ascent
            step.record.loss = step.record.loss if away or step.record.loss is not None else loss
        for runner, step in () if self.made else zip(self.runners, steps, strict=True):
            runner.check_first(step, two_calls=False)
        return value


def _apart(runners: Sequence[Runner], request: Grad) -> ExitStack:
    """The context of a pass in which the ranks differ."""
    contexts = ExitStack()
    for runner in runners:
        if runner.reduction.ranks_differ:
            contexts.enter_context(runner.reduction.context(request))
    return contexts


def finish(
    runners: Sequence[Runner],
    steps: list[Step],
    decisions: list[bool | Tensor],
    before: Sequence[Snapshot | None],
    hooks: Any = None,
) -> None:
    """Step the bases, or skip: of a joint step all are taken or none."""
    skipped = any(map(is_, decisions, repeat(False)))
    for runner, step, ok, then in zip(runners, steps, decisions, before, strict=True):
        step.close()
        runner.pending = runner.before = None
        if skipped:
            runner.skip(step, then)
        else:
            runner.take(step, ok, then, hooks)
