"""Learning rates by epoch, as factors of the first one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig


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


def rate(config: RunConfig, epoch: int, step: int, steps: int) -> float:
    """The learning rate of one step: the schedule's of its epoch, after a linear rise over ``config.warmup`` epochs.

    The rise is step by step: the first step has 1/W of the rate and the W-th all of it, W = warmup * steps, rounded.

    Args:
        config: the run.
        epoch: from 1.
        step: position in the epoch, from 0.
        steps: of an epoch.
    """
    full = config.lr * SCHEDULES[config.schedule]((epoch - 1) / config.epochs)
    rise = round(config.warmup * steps)
    done = (epoch - 1) * steps + step + 1
    return full * min(1.0, done / rise) if rise else full
