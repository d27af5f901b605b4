"""What a trainer has run at w is run again at w + e: the micro-batches of one step, and the state each began in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from fenland.arguments import check_among
from fenland.optimizer import SharpnessAware
from fenland.step.guards.snapshots import Guard, Snapshot

Accumulate = Literal["whole", "micro"]
Gradient: TypeAlias = "list[tuple[Tensor, Tensor]]"  # parameters and what their `p.grad` held


@dataclass
class MicroBatch:
    """One micro-batch that has been run at w.

    Attributes:
        again: runs forward and backward once more; is told whether it is the step's last one (that synchronises).
        start: buffers and generators before its pass 1.
        loss: its share of the loss at w, as its backward saw it (without a loss scale).
        gradient: its own gradient, where every micro-batch has its own ascent.
    """

    again: Callable[[bool], Tensor | None]
    start: Snapshot
    loss: Tensor | None = None
    gradient: Gradient = field(default_factory=list)


class NoGradientError(Exception):
    """Pass 1 left no gradient at all: there is no step to take."""


class Replay:
    """Holds the micro-batches of a step from their pass 1 to the step.

    Args:
        opt: the optimizer that will step.
        accumulate: "whole": e comes from the gradient accumulated over all micro-batches, and all of them are run again
            at w + e. "micro": each has its own ascent (m-SAM) and d is the sum of theirs; holds one gradient for each.
    """

    def __init__(self, opt: SharpnessAware, accumulate: Accumulate = "whole") -> None:
        check_among("accumulate", accumulate, ("whole", "micro"))
        _refuse(opt, accumulate)
        devices = {p.device for group in opt.param_groups for p in group["params"]}
        self.opt, self.micro = opt, accumulate == "micro"
        self.guard = Guard(opt.model, opt.replay_rng, devices)
        self.randomness = Guard(None, opt.replay_rng, devices)
        self.held: list[MicroBatch] = []

    def note(self, again: Callable[[bool], Tensor | None]) -> MicroBatch:
        """Hold a micro-batch. Call it right before its pass 1, then set the result's `loss`."""
        if self.micro:
            self._set_aside()
        # Buffers run on from one micro-batch to the next; data loading may draw random numbers between them.
        guard = self.guard if self.micro or not self.held else self.randomness
        self.held.append(MicroBatch(again, guard.take()))
        return self.held[-1]

    def forget(self) -> None:
        """Let go of what is held: the step was given up before its end."""
        self.held = []

    def step(self, live: Callable[[], Any] | None = None, scaler: Any = None) -> Any:
        """Take the step with all that is held.

        Args:
            live: runs (and notes) the last micro-batch's pass 1, where the trainer leaves that to the optimizer.
            scaler: the GradScaler that scales the losses; the caller updates it.

        Returns:
            The loss at w, a list of losses with several ascents; None where no micro-batch had a gradient.
        """
        start = self.held[0].start if self.held else self.guard.take()
        several = self.micro and len(self.held) + (live is not None) > 1
        accumulated = [] if several else self._taken()
        try:
            if several:
                value = self.opt.step(self._micro_closures(live), scaler=scaler)
            else:
                value = self.opt.step(self._closure(live, accumulated), scaler=scaler)
        except NoGradientError:
            return None
        except BaseException:
            self.guard.bring_back(start)
            raise
        finally:
            self.forget()
        self._undo_where_skipped(start)
        return value

    def _closure(self, live: Callable[[], Any] | None, accumulated: Gradient) -> Callable[[], Tensor | None]:
        """At w: the accumulated gradient and the last micro-batch's. At w + e: all of them anew."""
        calls = 0

        def closure() -> Tensor | None:
            nonlocal calls
            calls += 1
            if calls > 1:
                return self._again(last=True)
            if not self.opt.rules.method.clean_gradient and self.held:  # the weights are at w + e already
                now = self.randomness.take()
                self._again(last=live is None)
                self.randomness.bring_back(now)
            else:
                _give(accumulated)
            if live is not None:
                live()
            if not any(p.grad is not None for p in self.params()):
                raise NoGradientError
            return _sum([micro.loss for micro in self.held])

        return closure

    def _again(self, last: bool) -> Tensor | None:
        self.opt.zero_grad()
        losses = []
        for micro in self.held:
            guard = self.guard if micro is self.held[0] else self.randomness
            guard.bring_back(micro.start)
            losses.append(micro.again(last and micro is self.held[-1]))
        return _sum(losses)

    def _micro_closures(self, live: Callable[[], Any] | None) -> list[Callable[[], Tensor | None]]:
        """One closure a micro-batch. The trainer's losses are shares of a sum, `step([...])` takes a mean: times n."""
        self._set_aside()
        n = len(self.held) + (live is not None)
        closures = [self._micro_closure(i, n, None) for i in range(len(self.held))]
        return [*closures, self._micro_closure(n - 1, n, live)] if live is not None else closures

    def _micro_closure(self, i: int, n: int, live: Callable[[], Any] | None) -> Callable[[], Tensor | None]:
        calls = 0

        def closure() -> Tensor | None:
            nonlocal calls
            calls += 1
            if calls == 1 and live is not None:
                live()
            elif calls == 1 and self.opt.rules.method.clean_gradient:
                _give(self.held[i].gradient)
            micro = self.held[i]
            loss = micro.loss
            if calls > 1 or (live is None and not self.opt.rules.method.clean_gradient):
                self.opt.zero_grad()
                # Where the only pass is at w + e, buffers run on from the micro-batch before, not from its pass at w.
                (self.guard if calls > 1 or i == 0 else self.randomness).bring_back(micro.start)
                loss = micro.again(True)
            for p in self.params():
                if p.grad is not None:
                    p.grad.mul_(n)
            return None if loss is None else loss * n

        return closure

    def _set_aside(self) -> None:
        """Move the gradient out of `p.grad`, to the micro-batch that it belongs to."""
        if self.held and not self.held[-1].gradient:
            self.held[-1].gradient = self._taken()

    def _taken(self) -> Gradient:
        """The gradients, away from `p.grad`: a closure starts from none."""
        found = [(p, p.grad) for p in self.params() if p.grad is not None]
        for p, _ in found:
            p.grad = None
        return found

    def params(self) -> Iterator[Tensor]:
        """The optimizer's parameters."""
        return (p for group in self.opt.param_groups for p in group["params"])

    def _undo_where_skipped(self, start: Snapshot) -> None:
        """fenland brings back what its own part of the step changed; the trainer's pass 1 began before that."""
        skipped = self.opt.last.skipped
        if skipped is None:
            return
        if skipped.device.type != "cpu":
            self.guard.undo_where(skipped, start)  # without asking the host
        elif bool(skipped):
            self.guard.bring_back(start)


def _give(gradient: Gradient) -> None:
    """Put gradients back into `p.grad`; the list is emptied, so that nobody else holds them."""
    while gradient:
        p, x = gradient.pop()
        p.grad = x


def _sum(losses: list[Tensor | None]) -> Tensor | None:
    known = [x.detach() for x in losses if x is not None]
    return torch.stack(known).sum() if known else None


def _refuse(opt: SharpnessAware, accumulate: str) -> None:
    """Say at once what cannot be right under a trainer."""
    method = opt.rules.method
    if method.per_sample:
        raise ValueError(
            f"{type(method).__name__} needs the losses of single samples, and a trainer hands over their mean: "
            "use it in a plain loop, with opt.step(closure)"
        )
    world = torch.distributed.get_world_size() if _distributed() else 1
    if world > 1 and opt.sync == "local":
        raise ValueError('sync = "local": the trainer reduces pass 1 itself; use sync="global", or a plain loop')
    if world > 1 and accumulate == "micro":
        raise ValueError(
            'accumulate = "micro": over several processes the ranks\' gradients are reduced at the last micro-batch '
            'only; use accumulate="whole", or a plain loop with sync="local"'
        )


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextlib.contextmanager
def before_base_step(base: torch.optim.Optimizer, act: Callable[[], Any]) -> Iterator[None]:
    """Run `act` once `p.grad` holds d, right before the base uses it: the one place to clip."""

    def hook(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        factor = optimizer.__dict__.get("grad_scale")
        if factor is not None:  # a fused base would divide by it later: d must be whole now
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.div_(factor)
            optimizer.grad_scale = torch.ones_like(factor)  # type: ignore[attr-defined]
        act()

    handle = base.register_step_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def unwrapped(optimizer: Any) -> Any:
    """The optimizer inside a trainer's wrappers."""
    while not isinstance(optimizer, SharpnessAware) or "base" not in vars(optimizer):
        inner = vars(optimizer).get("optimizer", vars(optimizer).get("_optimizer"))
        if inner is None:
            return optimizer
        optimizer = inner
    return optimizer


def sharpness_aware(optimizer: Any, where: str) -> SharpnessAware:
    """The fenland optimizer inside a trainer's wrappers.

    Raises:
        TypeError: there is none.
    """
    found = unwrapped(optimizer)
    if not isinstance(found, SharpnessAware):
        raise TypeError(
            f"{where} is a {type(found).__name__}: must be a fenland optimizer, "
            "such as fenland.SSAM(base, rho=0.05, model=model)"
        )
    return found
