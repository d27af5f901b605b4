"""Evaluating the user's closure, and reading the loss from whatever it returns."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.rules.requests import Grad

Closure: TypeAlias = Callable[[], Any]

_running = threading.local()
_UNSCALED = "unscale_() has already been called"
_STALE = ("modified by an inplace operation", "backward through the graph a second time")


class Evaluation:
    """Runs a closure once for each request.

    With a method that chooses samples (`per_sample`), the closure zeroes the gradients, runs the forward pass and
    returns the losses of its samples, shape (B,), with their graph; backward runs here, on the chosen ones. A closure
    that takes one argument is given the indices of the samples that the pass needs (or None for all), so that it need
    not compute the others.

    Attributes:
        losses: the losses (B,) of the last pass of such a method, detached.
    """

    def __init__(self, closure: Closure, method: Any, scale: Callable[[Tensor], Tensor]) -> None:
        self.closure, self.method, self.scale = closure, method, scale
        self.losses: Tensor | None = None
        self.takes_indices = method.per_sample and bool(inspect.signature(closure).parameters)

    def __call__(self, request: Any) -> Any:
        """The closure's value, or the mean loss where it gives one a sample."""
        if not self.method.per_sample:
            return evaluate(self.closure)
        chosen = request.samples if isinstance(request, Grad) else None
        ahead = chosen if isinstance(chosen, Tensor) else None
        losses = self._losses(ahead)
        self.losses = losses.detach()
        if callable(chosen) and not isinstance(chosen, Tensor):
            chosen = chosen(self.losses)
        elif self.takes_indices:
            chosen = None  # the closure has left the others out
        with torch.enable_grad():
            torch.autograd.backward(self.scale((losses if chosen is None else losses[chosen]).mean()))
        return self.losses.mean()

    def _losses(self, keep: Tensor | None) -> Tensor:
        losses = evaluate(lambda: self.closure(keep)) if self.takes_indices else evaluate(self.closure)  # type: ignore[call-arg]
        if not isinstance(losses, Tensor) or losses.dim() != 1 or not losses.requires_grad:
            got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"{type(self.method).__name__} chooses samples, so the closure must return their losses, shape (B,), "
                f"with their graph and without backward (reduction='none'); it returned {got}"
            )
        return losses


def evaluate(closure: Closure) -> Any:
    """Run the closure with gradients enabled and return what it returns.

    Raises:
        RuntimeError: the second call reused the graph of the first, or unscaled anew; the message says so.
    """
    running = _Running()  # lives as long as this frame, however it is left
    _running.closure = weakref.ref(running)
    try:
        with torch.enable_grad():
            return closure()
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
        del running


class _Running:
    """Exists while a closure runs."""


def refuse_inside_a_closure() -> None:
    """Raise where a step begins inside another step's closure, which runs twice and would update twice."""
    running = getattr(_running, "closure", None)
    if running is not None and running() is not None:
        raise RuntimeError(
            "step() inside the closure of another step, which is run at w and again at w + e, and so would update "
            "twice: call the two one after the other, or fenland.step_together([first, second], closure)"
        )


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
