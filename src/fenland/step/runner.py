"""What one optimizer's steps share: its rules, guards and reduction, and the step between ascend() and descend()."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fenland.rules import ParameterNames
from fenland.step.base_step import is_fused, step_base
from fenland.step.drivers.evaluation import StaleGradients
from fenland.step.gradients import Scaled, drop
from fenland.step.guards.beginnings import ForwardWatch
from fenland.step.guards.snapshots import Guard, Snapshot
from fenland.step.perturbation import StorageCache
from fenland.step.record import StepRecord
from fenland.step.reduction import reduction
from fenland.step.refusals.attributes import AdvancedWarning
from fenland.step.refusals.loss_scale import LossScaleWatch
from fenland.step.refusals.rules import check_rules
from fenland.step.refusals.unguarded import watch_of_unguarded
from fenland.step.state import Memory, Rules
from fenland.step.step import Step


class Runner:
    """Holds what a step needs and what a step leaves; it knows the base, never the wrapping optimizer.

    Args:
        base: the wrapped optimizer.
        rules: choices and options.
        memory: what lives between steps.
        radii: rho by group.
        model: the module that is guarded, or None.
        replay_rng: whether generators are guarded.
        sync: "global" or "local".
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        rules: Rules,
        memory: Memory,
        radii: Any,
        model: nn.Module | None,
        replay_rng: bool,
        sync: str,
    ) -> None:
        self.base, self.rules, self.memory, self.radii = base, rules, memory, radii
        self.bases = [base]  # of a joint step those of all its optimizers
        params = [p for group in base.param_groups for p in group["params"]]
        self.names = ParameterNames(base.param_groups, model)
        check_rules(rules, base, self.names)
        self.reduction = reduction(sync, model, rules, params)
        self.on_host = any(p.device.type == "cpu" for p in params)
        self.guard = Guard(model, replay_rng, {p.device for p in params})
        self.watch = ForwardWatch(model, self.guard.take) if model is not None else None
        self.watches = [] if self.watch is None else [self.watch]
        self.unguarded = watch_of_unguarded(params, () if model is None else (model,))
        self.loss_scale = LossScaleWatch()
        self.storage = StorageCache()
        self.record = StepRecord()
        self.per_sample = rules.method.per_sample
        self.pending: Step | None = None
        self.before: Snapshot | None = None
        self.advanced = None if model is None else AdvancedWarning(model, params)
        self.after_first: Snapshot | None = None
        self._warned_of_nothing = self._warned_of_unseen = False
        self.stale = StaleGradients()

    def new_step(self, scaling: Scaled | None) -> Step:
        """A step that has run to its first request."""
        return Step(self, scaling, self.radii.now(self.base.param_groups, self.memory.count)).begin()

    def refuse(self, call: str, busy: bool) -> None:
        """Raise where `call` needs an ascent that is not there, or meets one that is (`busy`)."""
        if busy and self.pending is not None:
            raise RuntimeError(
                f"{call}() while the weights are at the ascent point: finish the step with descend(), "
                "or give it up with restore()"
            )
        if not busy and self.pending is None:
            raise RuntimeError(
                f"{call}() without an ascent: run backward at w and call ascend() first "
                "(a `with opt.ascent():` block ends the step by itself)"
            )

    def check_first(self, step: Step, two_calls: bool) -> None:
        """Once the gradient at w is there: warn of a step without any gradient."""
        first = step.h if step.g is None else step.g
        if first is not None and not first.params:
            self._warn_of_nothing("no parameter of the optimizer has a gradient, so this step does nothing")
        early = two_calls and self.rules.nonfinite == "raise" and not self.reduction.ranks_differ
        if early and step.g is not None and not math.isfinite(step.g.norm):  # where ranks differ others would wait
            step.fill_record()
            raise FloatingPointError(_nonfinite(step.record))

    def _warn_of_nothing(self, what: str) -> None:
        if not self._warned_of_nothing:
            self._warned_of_nothing = True
            why = "does every pass call loss.backward(), and on the model that the optimizer was built on?"
            warnings.warn(f"{what}: {why}", UserWarning, stacklevel=6)

    def warn_of_unseen(self, step: Step) -> None:
        """Gradients are there, but no forward of the model was seen: a compiled one shows none. Say so once."""
        if self.watch is None or self._warned_of_unseen or step.g is None or not step.g.params:
            return
        inside = list(self.watch.model.modules())
        drops = any(isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in inside)
        if drops or any(b is not None for m in inside for b in m._buffers.values()):
            self._warned_of_unseen = True
            warnings.warn(
                "ascend() has seen no forward of model= since the last step, as with a compiled model: its buffers and "
                "random numbers are not guarded. Use opt.step(closure), which knows where its passes begin",
                UserWarning,
                stacklevel=5,
            )

    def warn_of_unguarded(self, two_calls: bool) -> None:
        """A pass at w + e has run: say once what it has changed and nobody guards."""
        warning, self.unguarded = self.unguarded, None
        warning.close(of_randomness=self.guard.replay_rng and two_calls)  # type: ignore[union-attr]

    def watch_loss_scale(self, step: Step) -> None:
        """Look at the backward of the pass at w + e, which comes next."""
        params = [p for group in self.base.param_groups for p in group["params"]]
        self.loss_scale.watch(params if step.g is None else step.g.params[:1], step.scaling)

    def end_first_pass(self, guarded: bool, two_calls: bool) -> None:
        """Remember buffers and random numbers as they are to be after the step; pass 2 starts from those before it."""
        if guarded:
            self.after_first = self.guard.take_after_first() if two_calls else self.guard.take()
        if self.unguarded is not None:
            self.unguarded.watch()

    def end_second_pass(self, moved: bool, two_calls: bool) -> None:
        """Buffers and random numbers are as after pass 1; what is no buffer and went on twice is named."""
        if self.loss_scale.due:
            self.loss_scale.refuse(two_calls)
        if moved:
            if self.unguarded is not None:
                self.warn_of_unguarded(two_calls)
            if self.advanced is not None:
                self.advanced = self.advanced.compare(look=two_calls)
        if self.after_first is not None:
            self.guard.bring_back(self.after_first)
        self.after_first = None

    # The end of a step.

    def decide(self, step: Step, before: Snapshot | None) -> bool | Tensor:
        """Whether the step may be taken: True, False (all is as before it), or a device's bool tensor.

        Raises:
            FloatingPointError: a gradient is not finite and nonfinite="raise".
        """
        finite: bool | Tensor = step.settled.finite
        if not self.on_host and not self.host_decides():
            if before is not None:
                self.guard.undo_where(~torch.as_tensor(finite), before)
            return finite
        if step.h is not None and not step.h.params and step.g is not None and step.g.params:
            self._warn_of_nothing("at w + e no parameter of the optimizer has a gradient, so this step does nothing")
        ok = bool(finite)  # one look: on an accelerator each waits for the device
        if not ok and self.rules.nonfinite == "raise":
            raise FloatingPointError(_nonfinite(step.record))
        return ok

    def host_decides(self) -> bool:
        """Whether the host may look at the numbers: it is the device, or no fused base can decide for itself.

        A fused base's first step is looked at too: skipped on the device it would leave uninitialised momentum.
        """
        return (
            self.on_host
            or not is_fused(self.base)
            or not self.base.state
            or self.rules.nonfinite != "skip"
            or bool(self.rules.method.keeps)
            or self.rules.method.corrects
        )

    def skip(self, step: Step, before: Snapshot | None) -> None:
        """All is as before the step, which a scaler is told of: it has seen the overflow."""
        self.record = step.record
        self.roll_back([], before)
        if step.scaling is not None:
            drop(self.base.param_groups)  # without gradients the scaler's step touches nothing
            step.scaling.step(self.base, taken=False)

    def take(self, step: Step, ok: bool | Tensor, before: Snapshot | None, hooks: Any = None) -> None:
        """Step the base; what the program has put is kept once it has. A failure leaves what is fenland's as before."""
        self.record = step.record
        found_inf = (~ok).float() if isinstance(ok, Tensor) and step.scaling is None else None
        try:
            if hooks is not None:
                hooks[0]((hooks[2],), {})
            step_base(self.base, step.settled, step.scaling, found_inf)
            if hooks is not None:
                hooks[1]((hooks[2],), {})
        except BaseException:
            self.roll_back([], before)
            raise
        self.memory.commit(step.numbers, step.vectors)
        self.end_step()

    @torch.no_grad()  # an interrupt may come where the closure's gradient mode is still on
    def roll_back(self, steps: Sequence[Step], before: Snapshot | None) -> None:
        """All is as before the step: weights, buffers, generators; what a program has put is forgotten."""
        for step in steps:
            step.close()
        self.pending = self.before = self.after_first = None
        if before is not None:
            self.guard.bring_back(before)
        self.end_step()

    def end_step(self) -> None:
        """Watch for the next step's beginning, and for nothing else."""
        if self.unguarded is not None:
            self.unguarded.stop()
        if self.loss_scale.due:
            self.loss_scale.stop()
        if self.watch is not None:
            self.watch.quiet = False
            self.watch.begin_anew()


def _nonfinite(record: StepRecord) -> str:
    at_w = "?" if record.grad_norm is None else float(record.grad_norm)
    ascent = "" if record.ascent_grad_norm is None else f", ||h|| = {float(record.ascent_grad_norm)} at w + e"
    return (
        f"non-finite gradient: ||g|| = {at_w} at w{ascent}; all is as before the step. "
        'nonfinite="skip" skips such steps'
    )
