"""Gradients under a loss scale (torch.amp.GradScaler), read without touching the scaler's private state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fenland.algebra import Scalar, Vector
from fenland.algebra.lists import scale_


def is_active(scaler: Any) -> bool:
    """Whether the scaler scales at all (a disabled one is as none)."""
    return scaler is not None and bool(scaler.is_enabled())


def inverse_scale(scaler: Any, like: Vector) -> Scalar | None:
    """1 / scale as a device tensor, no synchronisation; None without an active scaler."""
    if not is_active(scaler) or not like:
        return None
    scale: Scalar = scaler.scale(torch.ones((), device=like[0].device))
    return scale.reciprocal()


def rescale_(scaler: Any, xs: Vector) -> None:
    """Put the loss scale back into gradients that it has left already."""
    if xs:
        scale_(scaler.scale(torch.ones((), device=xs[0].device)), xs)


def poison(h: Vector, g_norm: Scalar) -> None:
    """Make h non-finite where g was, so that the scaler itself sees an overflow of pass 1 and backs off.

    Adds 0 * ||g|| to the smallest gradient: nothing where ||g|| is finite, NaN where it is not.
    """
    if h:
        smallest = min((x for x in h if x.numel()), key=lambda x: x.numel())
        smallest.add_((g_norm * 0).to(smallest.device))


def unscale_by_hand(scaler: Any, xs: Vector, g_norm: Scalar | None) -> None:
    """Take the loss scale out without the scaler's knowing: it unscales once a step, and this is not yet d."""
    if g_norm is not None:
        poison(xs, g_norm)
    inverse = inverse_scale(scaler, xs)
    if inverse is not None:
        scale_(inverse, xs)


def announce(scaler: Any, base: torch.optim.Optimizer, claim: Callable[[Any], None], *, scaled: bool = True) -> None:
    """Let the scaler unscale the base's gradients, as it does once a step, and so see whether they are finite.

    Args:
        scaler: an active GradScaler.
        base: the wrapped optimizer.
        claim: calls `scaler.unscale_` for the wrapping optimizer, on no gradient: it raises where the user did so.
        scaled: whether the gradients carry the loss scale; else they get it back first.

    Raises:
        RuntimeError: the scaler has unscaled or stepped one of the two since its last update.
    """
    if not scaled:
        rescale_(scaler, [p.grad for group in base.param_groups for p in group["params"] if p.grad is not None])
    try:
        claim(scaler)
        scaler.unscale_(base)
    except RuntimeError as error:
        raise RuntimeError(
            "the scaler has unscaled this optimizer's gradients already: take scaler.unscale_() out of the closure "
            "(fenland unscales; max_norm= clips), and call scaler.update() once after every step"
        ) from error
