"""The radius rho: a number, or a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

Radius: TypeAlias = "float | Callable[[int], float]"


def current_radius(rho: Radius, step: int, name: str = "rho") -> float:
    """The radius at `step` (from 0): rho itself, or rho(step).

    Raises:
        ValueError: the radius is negative, infinite or NaN.
        TypeError: it is not a number.
    """
    value = rho(step) if callable(rho) else rho
    where = f"{name}({step})" if callable(rho) else name
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{where} = {value!r}: the radius must be a number (or a callable of the step that returns one)"
        )
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where} = {value!r}: the radius must be finite and >= 0; 0 switches the ascent off")
    return float(value)
