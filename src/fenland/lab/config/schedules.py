"""Learning rates over the training, as factors of the configured one."""

from __future__ import annotations

import math
from collections.abc import Callable

# The share of a cycle that rises: torch's own OneCycleLR has the same.
RISE = 0.3


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def step(progress: float) -> float:
    """1, then 20 %, 4 % and 0.8 % from 30, 60 and 80 % of the epochs on (a fifth each, as WideResNet is trained)."""
    return 0.2 ** sum(progress >= mark for mark in (0.3, 0.6, 0.8))


def one_cycle(progress: float) -> float:
    """A straight rise from 0 to 1 over the first 30 %, then half a cosine to 0 (Smith and Topin 2018)."""
    return progress / RISE if progress < RISE else cosine((progress - RISE) / (1 - RISE))


# progress in [0, 1]: the share of the epochs that is done; of those in BY_STEP, of the steps.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "one-cycle": one_cycle,
}
BY_STEP = frozenset({"one-cycle"})
