"""The radius rho: a number, or a function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

Radius: TypeAlias = "float | Callable[[int], float]"


class LearningRateTied(ABC):
    """A radius that follows the learning rate of its group (unit of w)."""

    @abstractmethod
    def at(self, lr: float) -> float:
        """The radius at learning rate lr."""

    def __call__(self, step: int) -> float:
        """Without a learning rate there is no radius."""
        raise ValueError(f"rho = {self!r}: follows the learning rate, but the base's groups have no 'lr'")


def current_radius(rho: Radius, step: int, name: str = "rho", lr: object = None) -> float:
    """The radius at `step` (from 0): rho itself, rho(step), or rho.at(step, lr) of a schedule that reads the lr.

    Raises:
        ValueError: the radius is negative, infinite or NaN.
        TypeError: it is not a number.
    """
    if isinstance(rho, LearningRateTied) and lr is not None:
        value: object = rho.at(float(lr))  # type: ignore[arg-type]
    else:
        value = rho(step) if callable(rho) else rho
    where = f"{name}({step})" if callable(rho) else name
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{where} = {value!r}: the radius must be a number (or a callable of the step that returns one)"
        )
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where} = {value!r}: the radius must be finite and >= 0; 0 switches the ascent off")
    return float(value)
