"""The user's closure: what must not hand one over, running it, and reading the loss from whatever it returns."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import is_
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.algebra.shards import PLAIN, is_dtensor
from fenland.rules.requests import Grad

Closure: TypeAlias = Callable[[], Any]

NO_CLOSURE = (
    "step() without a closure: a sharpness-aware step evaluates the gradient twice. Pass a closure that zeroes, runs "
    "forward and backward and returns the loss, or call ascend() and descend() yourself. A trainer that steps by "
    "itself needs fenland's adapter: fenland.integrations.transformers.SharpnessAwareTrainer for the Hugging Face "
    "Trainer, fenland.integrations.accelerate.SharpnessAwareStep for an Accelerate loop"
)
_NEAR = 12  # frames between a wrapper's `step` and ours: torch's hooks, the profiler, a scheduler's counter

_running = threading.local()
_nothing = type(None)
_UNKNOWN: tuple[Any, int, Any] = (_nothing, 0, None)  # of a gradient that is not watched, or was seen already
_LOOK = 64  # elements of an old gradient that say whether it was zero
_UNSCALED = "unscale_() has already been called"
_STALE = ("modified by an inplace operation", "backward through the graph a second time")


class PerSample:
    """Runs a closure once for each request of a method that chooses samples (`per_sample`).

    The closure zeroes the gradients, runs the forward pass and returns the losses of its samples, shape (B,), with
    their graph; backward runs here, on the chosen ones. A closure that takes one argument is given the indices of the
    samples that the pass needs (or None for all), so that it need not compute the others.

    Attributes:
        losses: the losses (B,) of the last pass, detached.
    """

    scaling: Any = None  # of the step that runs

    def __init__(self, closure: Closure, method: Any) -> None:
        self.closure, self.method = closure, method
        self.losses: Tensor | None = None
        self.takes_indices = bool(inspect.signature(closure).parameters)

    def __call__(self, request: Any = None) -> tuple[Tensor, Tensor]:
        """The mean loss of all samples, as value and as loss."""
        chosen = request.samples if isinstance(request, Grad) else None
        ahead = chosen if isinstance(chosen, Tensor) else None
        losses = self._losses(ahead)
        self.losses = losses.detach()
        if callable(chosen) and not isinstance(chosen, Tensor):
            chosen = chosen(self.losses)
        elif self.takes_indices:
            chosen = None  # the closure has left the others out
        with torch.enable_grad():
            loss = (losses if chosen is None else losses[chosen]).mean()
            torch.autograd.backward(loss if self.scaling is None else self.scaling.scale_loss(loss))
        mean = self.losses.mean()
        return mean, mean

    def _losses(self, keep: Tensor | None) -> Tensor:
        losses, _ = evaluate(lambda: self.closure(keep)) if self.takes_indices else evaluate(self.closure)  # type: ignore[call-arg]
        if not isinstance(losses, Tensor) or losses.dim() != 1 or not losses.requires_grad:
            got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"{type(self.method).__name__} chooses samples, so the closure must return their losses, shape (B,), "
                f"with their graph and without backward (reduction='none'); it returned {got}"
            )
        return losses


def evaluate(closure: Closure, request: Any = None) -> tuple[Any, Tensor | None]:
    """Run the closure with gradients enabled; what it returns, and the loss in that.

    Raises:
        RuntimeError: the second call reused the graph of the first, or unscaled anew; the message says so.
    """
    running = _Running()  # lives as long as this frame, however it is left
    _running.closure = weakref.ref(running)
    before = torch.is_grad_enabled()
    try:
        torch._C._set_grad_enabled(True)  # a `with` would cost a small model's step more
        value = closure()
    except RuntimeError as error:
        if any(text in str(error) for text in _STALE):
            raise RuntimeError(
                "the closure ran backward through a graph that was built before it was called: "
                "every call must run its own forward pass at the weights as they are then"
            ) from error
        if _UNSCALED in str(error):
            raise RuntimeError(
                "the closure calls scaler.unscale_(), which a scaler allows once a step: take it out of the closure "
                "(fenland unscales; max_norm= clips)"
            ) from error
        raise
    finally:
        torch._C._set_grad_enabled(before)
        del running
    return value, loss_of(value)


class _Running:
    """Exists while a closure runs."""


def refuse_caller(closure: Any) -> None:
    """Raise where the step begins in a place, or from a trainer, where the closure cannot be what a step needs.

    Trainers are known by what they hand over or by their frames: none of them is imported here.

    Raises:
        RuntimeError: inside another step's closure, which runs twice and would update twice; Lightning accumulates, and
            its closure runs the last micro-batch alone; or Accelerate does, which leaves out the closures of all
            micro-batches but the last.
    """
    running = getattr(_running, "closure", None)
    if running is not None and running() is not None:
        raise RuntimeError(
            "step() inside the closure of another step, which is run at w and again at w + e, and so would update "
            "twice: call the two one after the other, or fenland.step_together([first, second], closure)"
        )
    every = _lightning(closure) if isinstance(closure, partial) else 1
    if every > 1:
        raise RuntimeError(
            f"accumulate_grad_batches = {every}: Lightning's closure runs the last micro-batch alone, so that e and d "
            "would mix different batches; give the Trainer callbacks=[SharpnessAwareCallback()] from "
            "fenland.integrations.lightning"
        )
    frame = sys._getframe(1) if "accelerate.optimizer" in sys.modules else None
    for _ in range(_NEAR):
        frame = None if frame is None else frame.f_back
        if frame is not None and frame.f_globals.get("__name__") == "accelerate.optimizer":
            state = getattr(frame.f_locals.get("self"), "gradient_state", None)
            every = int(getattr(state, "num_steps", 1))
            break
    if every > 1:
        raise RuntimeError(
            f"gradient_accumulation_steps = {every}: Accelerate leaves out the closures between two steps, and their "
            "batches with them; use fenland.integrations.accelerate.SharpnessAwareStep"
        )


def refuse_inner_step(base: Any, args: Any, kwargs: Any) -> None:
    """A hook on a base while a closure runs; one that an interrupt has left behind does nothing.

    Raises:
        RuntimeError: the closure steps the base.
    """
    running = getattr(_running, "closure", None)
    if running is None or running() is None:
        return
    raise RuntimeError(
        f"{type(base).__name__}.step() inside the closure, which is run at w and again at w + e, and so would update "
        "twice: take it out of the closure, since the sharpness-aware step steps its base"
    )


def _lightning(closure: partial[Any]) -> int:
    """How many micro-batches a step of the Lightning trainer has whose precision plugin made this closure; else 1."""
    plugin = getattr(closure.func, "__self__", None)
    if not type(plugin).__module__.startswith(("lightning.", "pytorch_lightning.")):
        return 1
    trainer = getattr(closure.args[0] if closure.args else None, "_trainer", None)  # `trainer` raises where none is
    return int(getattr(trainer, "accumulate_grad_batches", 1))


def loss_of(value: Any) -> Tensor | None:
    """The loss in a closure's value: a tensor, a number, the first item of a sequence or the "loss" of a mapping."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return loss_of(value.get("loss"))
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return loss_of(value[0])
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return torch.tensor(float(value))
    inner = getattr(value, "loss", None)
    return loss_of(inner) if inner is not None and inner is not value else None


class StaleGradients:
    """Watches gradients that are there before pass 1: backward must not be the next that writes to them.

    A closure that zeroes in place writes twice (zeros, then the gradient), one that sets None makes a new tensor. So
    one write since the step began, on numbers that were not zero, is a backward onto an old gradient.

    On the first step that finds old gradients every one is watched, so that a closure which zeroes a part of the model
    is found; later the smallest of them alone. A runner has one for all of its steps.
    """

    def __init__(self) -> None:
        self._found = False
        self._smallest: Callable[[], Tensor | None] = _nothing
        self._old: dict[Tensor, tuple[Any, int, Tensor]] = {}  # gradients by weak reference: nobody keeps their memory
        self._handles: list[Any] = []

    def watched(self, call: Callable[[Any], Any], request: Any, runners: Sequence[Any]) -> Any:
        """Pass 1 of these runners' step, and its value.

        Raises:
            RuntimeError: it was added to an old gradient.
        """
        try:
            self._watch(runners)
            value = call(request)
            for p, (old, _, _) in list(self._old.items()):  # a closure that writes p.grad by hand, or does not reach p
                if p.grad is not None and p.grad is old() and p.grad.any():
                    self._accumulated(p)
            found = self._found
        finally:
            for handle in self._handles:
                handle.remove()
            self._handles, self._old, self._found = [], {}, False
        if found:
            raise RuntimeError(
                "the closure does not zero the gradients, so pass 1 was added to what p.grad held before the step. "
                "A closure of fenland begins with optimizer.zero_grad() and runs its own forward and backward, at w "
                "and again at w + e; if you run backward before the step, as other SAM code asks you to, call "
                "optimizer.ascend() after it and optimizer.descend() after the second backward instead"
            )
        return value

    def _watch(self, runners: Sequence[Any]) -> None:
        known = self._smallest()
        params = [p for runner in runners for group in runner.base.param_groups for p in group["params"]]
        if known is not None and known.grad is not None and any(map(is_, params, repeat(known))) and self._noted(known):
            return
        seen = [p for p in params if p.grad is not None and self._noted(p)]
        if seen:
            self._smallest = weakref.ref(min(seen, key=Tensor.numel))

    def _noted(self, p: Any) -> bool:
        grad = p.grad
        sharded = type(p) not in PLAIN and is_dtensor(p)
        if sharded or grad.layout != torch.strided or not p.requires_grad or not p.is_leaf:
            return False
        content = grad.clone() if grad.numel() <= _LOOK else grad.reshape(-1)[:_LOOK].clone()
        self._old[p] = weakref.ref(grad), grad._version, content
        self._handles.append(p.register_post_accumulate_grad_hook(self._accumulated))
        return True

    def _accumulated(self, p: Any) -> None:
        """Backward has just added to a watched gradient for the first time, or made a new one."""
        old, version, content = self._old.pop(p, _UNKNOWN)
        grad = p.grad
        if grad is not None and old() is grad and grad._version == version + 1 and content.any():
            self._found = True  # still the old tensor, which was not zero, written to once
