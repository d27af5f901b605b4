"""Shares of starts, with their intervals."""

from __future__ import annotations

import math

from fenland.lab.store.statistics import Interval

_Z = 1.959964  # 97.5 % point of the normal distribution


def share(hits: int, count: int) -> Interval:
    """hits / count with Wilson's 95 % interval, which is of use at 0 and 1 too (Wilson 1927)."""
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"hits = {hits!r}, count = {count!r}: must be 0 <= hits <= count, count >= 1")
    mean = hits / count
    z2 = _Z * _Z / count
    middle = (mean + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(mean * (1 - mean) / count + z2 / (4 * count)) / (1 + z2)
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half), count)


def percent(found: Interval) -> str:
    """A share in per cent with its interval."""
    return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
