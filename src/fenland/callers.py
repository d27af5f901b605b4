"""Trainers that step an optimizer in their own way, known by what they hand over: none of them is imported here."""

from __future__ import annotations

from functools import partial
from typing import Any

NO_CLOSURE = (
    "step() without a closure: a sharpness-aware step evaluates the gradient twice. Pass a closure that zeroes, runs "
    "forward and backward and returns the loss, or call ascend() and descend() yourself. A trainer that steps by "
    "itself needs fenland's adapter: fenland.integrations.transformers.SharpnessAwareTrainer for the Hugging Face "
    "Trainer, fenland.integrations.accelerate.SharpnessAwareStep for an Accelerate loop"
)


def refuse_caller(closure: Any) -> None:
    """Raise where a trainer's closure would make a wrong step: Lightning's runs the last micro-batch alone.

    Raises:
        RuntimeError: Lightning accumulates gradients, and no callback of fenland's stands in between.
    """
    if not isinstance(closure, partial):
        return
    plugin = getattr(closure.func, "__self__", None)
    module = closure.args[0] if closure.args else None
    if not type(plugin).__module__.startswith(("lightning.", "pytorch_lightning.")):
        return
    trainer = getattr(module, "_trainer", None)  # `trainer` itself raises where a module has none
    every = getattr(trainer, "accumulate_grad_batches", 1)
    if every > 1:
        raise RuntimeError(
            f"accumulate_grad_batches = {every}: Lightning's closure runs the last micro-batch alone, so that e and d "
            "would mix different batches; give the Trainer callbacks=[SharpnessAwareCallback()] from "
            "fenland.integrations.lightning"
        )
