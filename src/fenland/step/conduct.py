"""The course of one step: passes, guards, decisions and the hand-over, in both call forms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fenland.step import microbatches
from fenland.step.ascent import Ascent, advance, depart, look, look_ahead
from fenland.step.census import Census
from fenland.step.closures import Closure, loss_of
from fenland.step.compatible import check_compatible
from fenland.step.descent import Update, come_home, correct
from fenland.step.gradients import collect, drop
from fenland.step.guards import ForwardWatch, Guard, Snapshot
from fenland.step.handover import hand_over, is_fused
from fenland.step.memory import Choices, Mark, Memory, Setting
from fenland.step.parallel import Parallel
from fenland.step.record import StepRecord
from fenland.step.samples import Passes
from fenland.step.scaling import announce, is_active, poison, unscale_by_hand
from fenland.step.search import search
from fenland.step.storage import Roster
from fenland.step.unguarded import Lookout

Unscale: TypeAlias = "Callable[[Ascent, Any], None]"


class Conductor:
    """Runs steps of one optimizer; between `ascend` and `descend` it holds the step under way."""

    def __init__(
        self,
        base: torch.optim.Optimizer,
        choices: Choices,
        memory: Memory,
        radii: Callable[[], list[float]],
        model: nn.Module | None,
        replay_rng: bool,
        sync: str,
        claim: Callable[[Any], None],
    ) -> None:
        self.claim = claim
        self.base, self.choices, self.memory, self.radii = base, choices, memory, radii
        params = [p for group in base.param_groups for p in group["params"]]
        self.parallel = Parallel(sync, model, choices, params)
        self.on_host = any(p.device.type == "cpu" for p in params)
        self.census = Census(base.param_groups, model) if choices.ball.needs_names else None
        check_compatible(choices, base, self.census)
        self.guard = Guard(model, replay_rng, {p.device for p in params})
        self.watch = ForwardWatch(model, self._forward_begins) if model is not None else None
        self.lookout = Lookout(params) if model is None else None
        self.record = StepRecord()
        self.roster = Roster()
        self.asc: Ascent | None = None
        self._warned_of_nothing = False
        self._before: Snapshot | None = None
        self._after_first: Snapshot | None = None
        self._mark: Mark | None = None

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The base's groups."""
        return self.base.param_groups

    def setting(self, scaler: Any = None) -> Setting:
        """This step's surroundings."""
        active = scaler if is_active(scaler) else None
        return Setting(self.choices, self.base, self.memory, self.radii(), self.census, active, self.roster)

    # One call: the closure runs at w and again at w + e.

    def run(self, closures: Sequence[Closure], scaler: Any, many: bool) -> Any:
        """A whole step; on any exception everything is as before it."""
        self.refuse("step", busy=True)
        if self.watch is not None:
            self.watch.armed = False  # this form knows where its passes begin
        before, self._mark = self.guard.take(), self.memory.mark()
        try:
            setting = self.setting(scaler)
            if many:
                value, update = microbatches.passes(self, closures, setting)
            else:
                value, update = self.passes(closures[0], before, setting, self.unscale)
            ok = self._decide(update, before)
        except BaseException:
            self._roll_back(before)
            raise
        self._hand_over(update, ok, scaler)
        return value

    def passes(self, closure: Closure, before: Snapshot, setting: Setting, unscale: Unscale) -> tuple[Any, Update]:
        """All passes at one batch: afterwards the weights are at w and `p.grad` holds d up to the update's factor."""
        run = Passes(closure, self.choices.source, setting.scaler)
        if not self.choices.source.needs_gradient:
            return self._one_pass(run, setting, unscale)
        with self.parallel.first_pass():
            value = run.first()
        asc = self._look(setting, two_calls=False)
        asc.record.loss = loss_of(value)
        if asc.moved:
            depart(asc, setting)
            drop(self.groups)
            after_first = self.guard.take()
            for _ in range(self.choices.source.inner - 1):
                self.guard.bring_back(before)
                with self.parallel.first_pass():
                    run.second()
                advance(asc, setting)
                drop(self.groups)
            self.guard.bring_back(before)
            with self.parallel.second_pass():
                asc.record.loss_ascent = loss_of(run.second())
            come_home(asc, setting)
            if self.choices.combine.searches(self.memory.count):
                search(asc, setting, partial(self._once_more, run, before))
            self.guard.bring_back(after_first)
        return value, self._descend(asc, setting, unscale)

    def _once_more(self, run: Passes, before: Snapshot) -> Any:
        self.guard.bring_back(before)
        return run.second()

    def _one_pass(self, run: Passes, setting: Setting, unscale: Unscale) -> tuple[Any, Update]:
        """The only gradient of the step is at w + e, where e was known before."""
        asc = self.asc = look_ahead(setting)
        if asc.moved:
            depart(asc, setting)
        drop(self.groups)
        value = run.first()
        asc.record.loss_ascent = loss_of(value)
        asc.record.loss = None if asc.moved else asc.record.loss_ascent
        come_home(asc, setting)
        return value, self._descend(asc, setting, unscale)

    # Two calls: the user runs both passes.

    def ascend(self, scaler: Any) -> bool:
        """From g in `p.grad` to w + e; whether the weights moved."""
        self.refuse("ascend", busy=True)
        if self.choices.source.inner > 1 or self.choices.source.per_sample:
            raise RuntimeError(f"ascend(): {self.choices.source} evaluates more than one gradient; use step(closure)")
        if self.choices.combine.starts:
            raise RuntimeError(f"ascend(): {self.choices.combine} evaluates more points; use step(closure)")
        before, self._before, self._mark = self._before, None, self.memory.mark()
        try:
            setting = self.setting(scaler)
            asc = self._look(setting, two_calls=True)
            # Where ranks differ, one that raised here would leave the others waiting in pass 2.
            early = self.choices.nonfinite == "raise" and not self.parallel.ranks_differ
            if early and asc.g_norm is not None and not bool(torch.isfinite(asc.g_norm)):
                raise FloatingPointError(_nonfinite(asc.record))
            if asc.moved:
                depart(asc, setting)
            else:
                asc.g.secure()
            drop(self.groups)
            if before is not None:
                self._after_first = self.guard.take()
                self.guard.bring_back(before)
                self._before = before
        except BaseException:
            self._roll_back(before)
            raise
        return asc.moved

    def descend(self, scaler: Any) -> None:
        """From h in `p.grad` back to w, and one step of the base."""
        asc, before = self._under_way("descend"), self._before
        try:
            setting = self.setting(scaler)
            if not asc.moved and asc.g_norm is not None:
                drop(self.groups)
                asc.g.give_back()
            come_home(asc, setting)
            if self._after_first is not None:
                self.guard.bring_back(self._after_first)
            update = self._descend(asc, setting, self.unscale)
            ok = self._decide(update, before)
        except BaseException:
            self._roll_back(before)
            raise
        self._hand_over(update, ok, scaler)

    def restore(self) -> None:
        """Give up the ascent: weights, buffers and generators are as before the step; gradients are None."""
        self._under_way("restore")
        self._roll_back(self._before)
        drop(self.groups)

    def _under_way(self, call: str) -> Ascent:
        self.refuse(call, busy=False)
        return self.asc  # type: ignore[return-value]

    def refuse(self, call: str, busy: bool) -> None:
        """Raise where `call` needs an ascent that is not there, or meets one that is (`busy`)."""
        if busy and self.asc is not None:
            raise RuntimeError(
                f"{call}() while the weights are at the ascent point: finish the step with descend(), "
                "or give it up with restore()"
            )
        if not busy and self.asc is None:
            raise RuntimeError(
                f"{call}() without an ascent: run backward at w and call ascend() first "
                "(a `with opt.ascent():` block ends the step by itself)"
            )

    # What both forms share.

    def _look(self, setting: Setting, two_calls: bool) -> Ascent:
        asc = look(setting) if self.choices.source.needs_gradient else look_ahead(setting)
        if self.lookout is not None:
            lookout, self.lookout = self.lookout, None
            lookout.close(randomness_replayed=self.guard.replay_rng and not two_calls)
        if self.choices.source.needs_gradient and not asc.g.params and not self._warned_of_nothing:
            self._warned_of_nothing = True
            warnings.warn(
                "no parameter of the optimizer has a gradient, so this step does nothing: does the closure call "
                "loss.backward(), and on the model that the optimizer was built on?",
                UserWarning,
                stacklevel=4,
            )
        # On an accelerator `_decide` alone looks, once a step; here it is free, and spares pass 2.
        looks = asc.moved and asc.g_norm is not None and self.on_host and not self.parallel.ranks_differ
        if looks and not math.isfinite(asc.g_norm.item()):  # type: ignore[union-attr]
            asc.moved = False  # nothing to climb along: `_decide` sees the same and skips
        self.asc = asc
        return asc

    def _descend(self, asc: Ascent, setting: Setting, unscale: Unscale) -> Update:
        if self.choices.combine.starts:
            tuned = self.choices.combine.tuned(self.memory.scalars)
            setting = replace(setting, choices=replace(setting.choices, combine=tuned))
        if setting.scaler is not None:
            unscale(asc, setting.scaler)
        update = self.parallel.descend(setting, asc)
        if setting.scaler is not None and unscale == self.unscale and self.parallel.reduces(asc):
            announce(setting.scaler, self.base, self.claim, scaled=False)
        self.asc = None
        self._before = self._after_first = None
        self.record = update.record
        return update

    def unscale(self, asc: Ascent, scaler: Any) -> None:
        """Let the scaler unscale what `p.grad` holds, telling it of an overflow in pass 1."""
        tensors = collect(self.groups, to_write=False).tensors
        plain = asc.unscaled and not asc.moved
        if self.parallel.reduces(asc):  # announced once d is everybody's, so that all scalers see the same
            if not plain:
                unscale_by_hand(scaler, tensors, asc.g_norm)
            return
        if asc.g_norm is not None:
            poison(tensors, asc.g_norm)
        announce(scaler, self.base, self.claim, scaled=not plain)

    def _host_decides(self) -> bool:
        """Whether the host may look at the numbers: it is the device, or no fused base can decide for itself.

        A fused base's first step is looked at too: skipped on the device it would leave uninitialised momentum.
        """
        return (
            self.on_host
            or not is_fused(self.base)
            or not self.base.state
            or self.choices.nonfinite != "skip"
            or self.choices.keeps_vectors
            or self.choices.combine.corrects
        )

    def _decide(self, update: Update, before: Snapshot | None) -> bool | Tensor:
        """Whether the step may be taken: True, False (all is as before it), or a device's bool tensor."""
        update.record.skipped = ~update.finite
        if not self._host_decides():
            if before is not None:
                self.guard.undo_where(~update.finite, before)
            return update.finite
        if bool(update.finite):
            return True
        if self.choices.nonfinite == "raise":
            raise FloatingPointError(_nonfinite(update.record))
        self._roll_back(before)
        return False

    def _roll_back(self, before: Snapshot | None) -> None:
        if self.asc is not None:
            self.asc.journey.back()
        self.asc = self._before = self._after_first = None
        if self._mark is not None:
            self.memory.rewind(self._mark)
            self._mark = None
        if before is not None:
            self.guard.bring_back(before)
        self._rearm()

    def _hand_over(self, update: Update, ok: bool | Tensor, scaler: Any) -> None:
        self._rearm()
        self._mark = None
        scaler = scaler if is_active(scaler) else None
        if ok is False:
            if scaler is not None:  # it has seen the overflow; without gradients its step touches nothing
                drop(self.groups)
                scaler.step(self.base)
            return
        found_inf = (~ok).float() if isinstance(ok, Tensor) and scaler is None else None
        self.memory.count += 1
        hand_over(self.base, update.d, update.factor, sharded=update.sharded, found_inf=found_inf, scaler=scaler)
        correct(update)

    def _forward_begins(self) -> None:
        if self.asc is None:
            self._before = self.guard.take()

    def _rearm(self) -> None:
        if self.watch is not None:
            self.watch.armed = True


def _nonfinite(record: StepRecord) -> str:
    at_w = "?" if record.grad_norm is None else float(record.grad_norm)
    ascent = "" if record.ascent_grad_norm is None else f", ||h|| = {float(record.ascent_grad_norm)} at w + e"
    return (
        f"non-finite gradient: ||g|| = {at_w} at w{ascent}; all is as before the step. "
        'nonfinite="skip" skips such steps'
    )
