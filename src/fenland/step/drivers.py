"""Who evaluates the gradients that a program asks for: a closure, the user in two calls, or one closure a micro-batch.

All three run the same steps (`step.py`). They take a list of runners, one an optimizer: a joint step is the same
course with more than one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor

from fenland.rules.requests import Grad, Highest
from fenland.step.base_step import Handover, base_multiplies, clip_factor, multiply_in, settle
from fenland.step.checks import refuse_two_calls
from fenland.step.closures import Closure, PerSample, StaleGradients, evaluate, loss_of, refuse_inner_step
from fenland.step.gradients import Scaled, collect, drop, own_copy
from fenland.step.guards import Snapshot
from fenland.step.runner import Runner
from fenland.step.step import Step

_asks, _bases, _reduction = map(attrgetter, ("asks", "bases", "reduction"))
_ranks_differ = attrgetter("reduction.ranks_differ")


def run_closure(runners: Sequence[Runner], closure: Closure, scalings: Sequence[Scaled | None]) -> Any:
    """One step of each optimizer, the closure being called at w and again at w + e; returns what it returned at w.

    On any exception before the base steps, everything is as before.
    """
    return _whole_step(runners, scalings, partial(_evaluate, runners, closure))


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
            values.append(_evaluate([runner], closure, [step], [runner.guard.take()] if values else before))
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
        clip = clip_factor(runner.rules.max_norm, d)
        ok = torch.stack(finite).all() & torch.isfinite(d.norm)
        step.record.skipped = ~ok
        if not base_multiplies(d, clip, runner.base):
            multiply_in(d, clip)
            clip = 1.0
        step.settled = Handover(d.raw or [], clip, ok)
        return values

    return _whole_step([runner], [scaling], passes)  # type: ignore[no-any-return]


def ascend(runner: Runner, scaling: Scaled | None) -> bool:
    """From the gradient in `p.grad` to w + e, for the user's second pass; whether the weights moved."""
    runner.refuse("ascend", busy=True)
    refuse_two_calls(runner.rules)
    before = runner.watch.beginning() if runner.watch is not None else None
    step = runner.new_step(scaling)
    try:
        if step.request.at is None and runner.rules.method.clean_gradient:
            step.come_back()
        runner.check_first(step, two_calls=True)
        runner.attributes = [runner.attributes[0], runner.advanced.look()]
        if before is None:
            runner.warn_of_unseen(step)
        if step.asks and step.request.at is not None:
            step.go()
        else:  # no ascent: d is g, or the gradient of the pass that comes
            for leaf in step.alive:
                leaf.own()
            step.drop()
        runner.begin_second_pass(before, step)
        runner.pending, runner.before = step, before
    except BaseException:
        runner.roll_back([step], before)
        raise
    return bool(step.perturbation.params)


def descend(runner: Runner, scaling: Scaled | None, hooks: Any = None) -> None:
    """From the gradient at w + e, in `p.grad`, back to w, and one step of the base, between the wrapper's hooks."""
    runner.refuse("descend", busy=False)
    step: Any = runner.pending
    before = runner.before
    if getattr(step.scaling, "scaler", None) is not getattr(scaling, "scaler", None):
        raise RuntimeError(
            "a scaler in one half of the step only: both passes carry its scale, so call ascend(scaler=scaler) and "
            "descend(scaler=scaler)"
        )
    step.scaling = scaling
    try:
        if step.asks:
            step.come_back()
        else:
            step.drop()
        runner.end_second_pass(moved=step.h is not None)
        step.settled = settle(step, whole=hooks is not None)
        ok = runner.decide(step, before)
    except BaseException:
        runner.roll_back([step], before)
        raise
    finish([runner], [step], [ok], [before], hooks)


def restore(runner: Runner) -> None:
    """Give up the ascent: weights, buffers and generators are as before the step; gradients are None."""
    runner.refuse("restore", busy=False)
    pending: Any = runner.pending
    runner.roll_back([pending], runner.before)
    drop(runner.base.param_groups)


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
    decisions: list[bool | Tensor] = []
    try:
        for runner, scaling in zip(runners, scalings, strict=True):
            for watch in runner.watches:
                watch.quiet = True  # a closure's passes begin where it is called
            steps.append(runner.new_step(scaling))
        value = passes(steps, before)
        for step in steps:
            if step.settled is None:
                step.settled = settle(step)
        for runner, step, then in zip(runners, steps, before, strict=True):
            decisions.append(runner.decide(step, then))
    except BaseException:
        for runner, then in zip(runners, before, strict=True):
            runner.roll_back(steps, then)
        raise
    finish(runners, steps, decisions, before)
    return value


def _evaluate(runners: Sequence[Runner], closure: Closure, steps: list[Step], before: list[Snapshot]) -> Any:
    """All passes of one batch: each gradient that is asked for is one call of the closure, shared by all steps."""
    run = PerSample(closure, steps[0].rules.method, steps[0].scaling) if runners[0].per_sample else None
    after_first: list[Snapshot] = []
    seen: list[list[Any]] = []  # by runner that has not compared yet: attributes before, and after each pass
    for runner in runners:
        seen.append([] if runner.advanced.model is None else [runner.advanced.look(True)])
    passes, value = 0, None
    while asking := list(filter(_asks, steps)):
        if passes == 1 and not after_first:
            after_first += _before_second_pass(runners)
        for runner, then in zip(runners, before, strict=True) if passes else ():
            runner.guard.bring_back(then)
        request = asking[0].request
        if isinstance(request, Highest):
            asking[0].search(partial(_once_more, runners, before, closure, run))
            continue
        got = _one_pass(runners, steps, asking, closure, run, request, first=passes == 0)
        if passes == 0:
            value = got
            for runner, step in zip(runners, steps, strict=True):
                runner.check_first(step, two_calls=False)
        passes += 1
        for runner, found in zip(runners, seen, strict=True):
            found += [runner.advanced.look(True)] if found else []
    if after_first:
        _after_last_pass(runners, seen, after_first)
    return value


def _before_second_pass(runners: Sequence[Runner]) -> list[Snapshot]:
    """Pass 1 has run: buffers and generators as they are to be after the step."""
    after_first = []
    for runner in runners:
        if runner.unguarded is not None:
            runner.unguarded.watch()
        after_first.append(runner.guard.take())
    return after_first


def _after_last_pass(runners: Sequence[Runner], seen: list[list[Any]], after_first: list[Snapshot]) -> None:
    """Buffers and generators are as after pass 1; what nobody guards is named once."""
    for runner, found, then in zip(runners, seen, after_first, strict=True):
        if runner.unguarded is not None:
            runner.warn_of_unguarded(two_calls=False)
        if found:
            runner.advanced.compare([found[0], found[1], found[-1]])
        runner.guard.bring_back(then)


def _one_pass(
    runners: Sequence[Runner],
    steps: list[Step],
    asking: list[Step],
    closure: Closure,
    run: PerSample | None,
    request: Grad,
    first: bool,
) -> Any:
    """Go to where the gradient is asked for, run the closure, come back; the steps that ask get it."""
    stale = StaleGradients(runners) if first else None
    looks = runners[0].loss_scale.due and not (first and request.at is None)
    for step in steps:
        step.go() if step in asking else step.drop()
    if looks:
        runners[0].watch_loss_scale(steps[0])
    with ExitStack() as contexts:
        if stale is not None:
            contexts.callback(stale.close)
        for base in chain.from_iterable(map(_bases, runners)):
            if hasattr(base, "_optimizer_step_pre_hooks"):  # some wrappers have none
                contexts.callback(base.register_step_pre_hook(refuse_inner_step).remove)
        local: Any
        for local in map(_reduction, filter(_ranks_differ, runners)):
            contexts.enter_context(local.context(request))
        value = evaluate(closure) if run is None else run(request)
        if stale is not None:
            stale.refuse()
        if looks:
            runners[0].loss_scale.refuse(two_calls=False)
    loss = loss_of(value)
    for step in asking:
        away = bool(step.perturbation.params)
        step.come_back(None if run is None else run.losses)
        step.record.loss_ascent = loss if away else step.record.loss_ascent
        step.record.loss = step.record.loss if away or step.record.loss is not None else loss
    return value


def _once_more(runners: Sequence[Runner], before: list[Snapshot], closure: Closure, run: PerSample | None) -> Any:
    for runner, then in zip(runners, before, strict=True):
        runner.guard.bring_back(then)
    return evaluate(closure) if run is None else run(None)


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
