"""Learning rates by epoch, as factors of the first one."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def step(progress: float) -> float:
    """1, then 20 %, 4 % and 0.8 % from 30, 60 and 80 % of the epochs on (a fifth each, as WideResNet is trained)."""
    return 0.2 ** sum(progress >= mark for mark in (0.3, 0.6, 0.8))


# progress in [0, 1): the share of the epochs that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "step": step}
