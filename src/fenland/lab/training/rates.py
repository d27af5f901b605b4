"""The learning rate of each step."""

from __future__ import annotations

from fenland.lab.config import RunConfig
from fenland.lab.config.schedules import BY_STEP, SCHEDULES


def rate(config: RunConfig, epoch: int, step: int, steps: int) -> float:
    """The learning rate of one step: the schedule's of its epoch, after a linear rise over ``config.warmup`` epochs.

    A schedule in ``BY_STEP`` is taken at the middle of the step instead, so that neither its first nor its last rate is
    zero.

    The rise is step by step: the first step has 1/W of the rate and the W-th all of it, W = warmup * steps, rounded.
    """
    inside = (step + 0.5) / steps if config.schedule in BY_STEP else 0.0
    full = config.lr * SCHEDULES[config.schedule]((epoch - 1 + inside) / config.epochs)
    rise = round(config.warmup * steps)
    done = (epoch - 1) * steps + step + 1
    return full * min(1.0, done / rise) if rise else full
