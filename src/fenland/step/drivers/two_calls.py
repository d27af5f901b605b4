"""The user evaluates: `ascend()` after backward at w, `descend()` after backward at w + e, or `restore()`."""

from __future__ import annotations

from typing import Any

from fenland.step.base_step import settle
from fenland.step.drivers.closure import finish
from fenland.step.gradients import Scaled, drop
from fenland.step.refusals.rules import refuse_two_calls
from fenland.step.runner import Runner


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
        if runner.advanced is not None:
            runner.advanced.note(1)
        if before is None:
            runner.warn_of_unseen(step)
        if step.asks and step.request.at is not None:
            step.go()
        else:  # no ascent: d is g, or the gradient of the pass that comes
            for leaf in step.alive:
                leaf.own()
            step.drop()
        if runner.loss_scale.due:
            runner.watch_loss_scale(step)
        if runner.watch is not None:
            runner.watch.quiet = True
        runner.end_first_pass(guarded=before is not None, two_calls=True)
        if before is not None:
            runner.guard.bring_back(before)
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
        runner.end_second_pass(moved=step.h is not None, two_calls=True)
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
