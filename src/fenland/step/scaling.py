"""Gradients under a loss scale (torch.amp.GradScaler), read without touching the scaler's private state."""

from __future__ import annotations

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
