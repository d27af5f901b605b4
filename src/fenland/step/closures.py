"""Evaluating the user's closure, and reading the loss from whatever it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Closure: TypeAlias = Callable[[], Any]

_UNSCALED = "unscale_() has already been called"
_STALE = ("modified by an inplace operation", "backward through the graph a second time")


def evaluate(closure: Closure) -> Any:
    """Run the closure with gradients enabled and return what it returns.

    Raises:
        RuntimeError: the second call reused the graph of the first, or unscaled anew; the message says so.
    """
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
