"""Trainers that step an optimizer in their own way, known by what they hand over: none of them is imported here."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

NO_CLOSURE = (
    "step() without a closure: a sharpness-aware step evaluates the gradient twice. Pass a closure that zeroes, runs "
    "forward and backward and returns the loss, or call ascend() and descend() yourself. A trainer that steps by "
    "itself needs fenland's adapter: fenland.integrations.transformers.SharpnessAwareTrainer for the Hugging Face "
    "Trainer, fenland.integrations.accelerate.SharpnessAwareStep for an Accelerate loop"
)
_NEAR = 12  # frames between a wrapper's `step` and ours: torch's hooks, the profiler, a scheduler's counter


def refuse_caller(closure: Any) -> None:
    """Raise where a trainer accumulates gradients in a way that a closure for one micro-batch cannot follow.

    Raises:
        RuntimeError: Lightning accumulates, and its closure runs the last micro-batch alone; or Accelerate does, which
            leaves out the closures of all micro-batches but the last.
    """
    every = _lightning(closure)
    if every > 1:
        raise RuntimeError(
            f"accumulate_grad_batches = {every}: Lightning's closure runs the last micro-batch alone, so that e and d "
            "would mix different batches; give the Trainer callbacks=[SharpnessAwareCallback()] from "
            "fenland.integrations.lightning"
        )
    every = _accelerate()
    if every > 1:
        raise RuntimeError(
            f"gradient_accumulation_steps = {every}: Accelerate leaves out the closures between two steps, and their "
            "batches with them; use fenland.integrations.accelerate.SharpnessAwareStep"
        )


def _lightning(closure: Any) -> int:
    """How many micro-batches a step of the Lightning trainer has whose precision plugin made this closure; else 1."""
    if not isinstance(closure, partial):
        return 1
    plugin = getattr(closure.func, "__self__", None)
    if not type(plugin).__module__.startswith(("lightning.", "pytorch_lightning.")):
        return 1
    trainer = getattr(closure.args[0] if closure.args else None, "_trainer", None)  # `trainer` raises where none is
    return int(getattr(trainer, "accumulate_grad_batches", 1))


def _accelerate() -> int:
    """How many micro-batches a step has where Accelerate's wrapper is calling; else 1."""
    if "accelerate.optimizer" not in sys.modules:
        return 1
    frame = sys._getframe(1).f_back
    for _ in range(_NEAR):
        if frame is None:
            return 1
        if frame.f_globals.get("__name__") == "accelerate.optimizer":
            return int(getattr(getattr(frame.f_locals.get("self"), "gradient_state", None), "num_steps", 1))
        frame = frame.f_back
    return 1
