"""Checks of arguments: every message names the argument, its value and what is allowed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

_LONGEST = 80  # letters of a value that a message shows


def installing(extra: str) -> str:
    """How to install what an extra brings, in words that are right for an installed package and for a clone."""
    return f"pip install 'fenland[{extra}]', or pip install '.[{extra}]' in a clone"


def _shown(value: Any) -> str:
    """The value as one writes it; of one that takes lines (an optimizer, a tensor, a module) its type."""
    text = repr(value)
    if isinstance(value, (int, float, str)) or ("\n" not in text and len(text) <= _LONGEST):
        return text
    return f"<{type(value).__name__}>"


def check_among(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise a ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} = {_shown(value)}: must be one of {', '.join(map(repr, allowed))}")


def check_instance(name: str, value: Any, kind: type, example: str) -> None:
    """Raise a TypeError unless `value` is a `kind`."""
    if isinstance(value, type) and issubclass(value, kind):
        raise TypeError(f"{name} = {value.__name__}: pass an instance, {value.__name__}(...), not the class")
    if not isinstance(value, kind):
        raise TypeError(f"{name} = {_shown(value)}: must be a {kind.__name__}, such as {example}")


def is_finite(value: float) -> bool:
    """Whether float64 holds the number; whole numbers have no bound in Python."""
    return abs(value) <= sys.float_info.max


def check_positive(name: str, value: Any, otherwise: str = "") -> None:
    """Raise unless `value` is a finite number > 0, or None where `otherwise` says what that means."""
    if value is None and otherwise:
        return
    allowed = f", or None for {otherwise}" if otherwise else ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} = {_shown(value)}: must be a number > 0{allowed}")
    if not (is_finite(value) and value > 0):
        raise ValueError(f"{name} = {_shown(value)}: must be finite and > 0{allowed}")


def check_count(name: str, value: Any, otherwise: str) -> None:
    """Raise unless `value` is None or a whole number >= 1."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} = {_shown(value)}: must be a whole number >= 1, or None for {otherwise}")
    if value < 1:
        raise ValueError(f"{name} = {_shown(value)}: must be >= 1, or None for {otherwise}")


def check_between(name: str, value: Any, low: float, high: float) -> None:
    """Raise unless `value` is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} = {_shown(value)}: must be a number in [{low}, {high}]")
    if not low <= value <= high:
        raise ValueError(f"{name} = {_shown(value)}: must lie in [{low}, {high}]")


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise unless `value` is a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} = {_shown(value)}: must be a number")
    if not is_finite(value) or not low <= value <= high:
        bounds = f" in [{low}, {high}]" if (low, high) != (-math.inf, math.inf) else ""
        raise ValueError(f"{name} = {_shown(value)}: must be a finite number{bounds}")


def check_seed(seed: Any) -> None:
    """Raise unless `seed` is a whole number that torch's generators take."""
    check_whole("seed", seed, -(2**63))
    if seed >= 2**64:
        raise ValueError(f"seed = {_shown(seed)}: must be < 2**64, what torch's generators take")


def check_whole(name: str, value: Any, low: int) -> None:
    """Raise unless `value` is a whole number >= low."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} = {_shown(value)}: must be a whole number >= {low}")
    if value < low:
        raise ValueError(f"{name} = {_shown(value)}: must be a whole number >= {low}")
