"""Whether a loss function can be called as loss_fn(model, batch), said before anything runs."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

CURE = "it must take a model and a batch, such as lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])"


def check_loss_fn(loss_fn: Any) -> None:
    """Raise unless `loss_fn` takes two arguments by position; what it does with them is its own affair.

    Raises:
        TypeError: it is not callable, takes other arguments, or is a criterion, which takes outputs and targets.
    """
    if not callable(loss_fn) or isinstance(loss_fn, type):
        raise TypeError(f"loss_fn = {loss_fn!r}: must be callable as loss_fn(model, batch)")
    home = str(getattr(loss_fn, "__module__", None))
    if isinstance(loss_fn, nn.modules.loss._Loss) or home == "torch.nn.functional" or home.startswith("torch._C"):
        raise TypeError(f"loss_fn = {_name(loss_fn)}: is a criterion of outputs and targets; {CURE}")
    called = loss_fn.forward if isinstance(loss_fn, nn.Module) and not hasattr(loss_fn, "_orig_mod") else loss_fn
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # a builtin, say, does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"loss_fn = {_name(loss_fn)}{signature}: cannot be called as loss_fn(model, batch) ({error}); {CURE}"
        ) from None


def _name(loss_fn: Any) -> str:
    return str(getattr(loss_fn, "__qualname__", None) or type(loss_fn).__name__)
