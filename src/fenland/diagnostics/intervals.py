"""Confidence intervals of means."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fenland.diagnostics.spectra import need


def interval(
    values: Sequence[float], level: float, weights: Sequence[float] | None = None
) -> tuple[float, float, float]:
    """A weighted mean and its Student t interval at `level`; the ends are NaN with fewer than two values.

    The standard error is sqrt(n/(n-1) * sum_i (p_i * (x_i - mean))^2) with shares p_i, which is the usual one where all
    weights are equal.
    """
    n = len(values)
    total = math.fsum(weights) if weights is not None else float(n)
    shares = [x / total for x in weights] if weights is not None else [1 / n] * n
    mean = math.fsum(p * x for p, x in zip(shares, values, strict=True))
    if n < 2:
        return mean, math.nan, math.nan
    spread = math.fsum((p * (x - mean)) ** 2 for p, x in zip(shares, values, strict=True))
    error = math.sqrt(spread * n / (n - 1))
    half = error * float(need("scipy.special").stdtrit(n - 1, (1 + level) / 2))
    return mean, mean - half, mean + half
