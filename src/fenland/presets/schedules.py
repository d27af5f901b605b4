"""Methods that differ in the steps on which the ascent runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import fenland.rules as rules
from fenland.optimizer import SharpnessAware
from fenland.presets.table import preset
from fenland.rules import Radius


@preset(
    "with probability p: SAM's step, else d = g",
    "Zhao, Zhang, Hu 2022, arXiv 2203.09962 (v1: SS-SAM)",
    "WithProbability",
    cost="1 + p",
    defaults="p 0.5 is ours, between the constants of the paper's plots. rho 0.05 is SAM's",
    traps="p may be a callable of the step. The draw is the same on all ranks",
    always=False,
)
def RST(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    p: float | Callable[[int], float] = 0.5,
    seed: int = 0,
    **options: Any,
) -> SharpnessAware:
    """Randomized sharpness-aware training."""
    return SharpnessAware(base, rho, when=rules.WithProbability(p, seed), **options)


@preset(
    "SAM's step where |g|^2 >= mu + c_t sigma, else d = g",
    "Jiang, Yang, Zhang, Kwok 2023, arXiv 2304.14647",
    "AdaptiveToNorm",
    cost="1 to 2, about 1.5",
    syncs=1,
    defaults="delta 0.9 and lambda -1 and 1 are from memory. rho 0.05 is SAM's",
    traps="It needs the length of training, and one host synchronisation a step",
    needs=("total_steps",),
    always=False,
)
def AESAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    *,
    total_steps: int,
    delta: float = 0.9,
    lambda1: float = -1.0,
    lambda2: float = 1.0,
    **options: Any,
) -> SharpnessAware:
    """Adaptive SAM policy: ascends where the gradient is large for its time."""
    return SharpnessAware(base, rho, when=rules.AdaptiveToNorm(total_steps, delta, lambda1, lambda2), **options)


@preset(
    "SAM's step on every k-th step, else d = g",
    "MosaicML composer; Foret et al. 2021, arXiv 2010.01412, for the step",
    "EveryK",
    cost="1 + 1/k",
    defaults="k 10 and rho 0.5 are Composer's",
    traps="rho should grow with k. The k-th step is the first that ascends",
    always=False,
)
def IntervalSAM(base: torch.optim.Optimizer, rho: Radius = 0.5, k: int = 10, **options: Any) -> SharpnessAware:
    """SAM on every k-th step."""
    return SharpnessAware(base, rho, when=rules.EveryK(k, max(k - 1, 0) if isinstance(k, int) else 0), **options)


@preset(
    "SAM's step where start <= t < stop, else d = g",
    "Andriushchenko and Flammarion 2022, arXiv 2206.06232",
    "Window",
    cost="1 or 2",
    defaults="start 0 and stop None are all of training. rho 0.05 is SAM's",
    traps="With Adam, leave the ascent out during the warm-up of the learning rate (arXiv 2406.09723)",
    always=False,
)
def WindowSAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, start: int = 0, stop: int | None = None, **options: Any
) -> SharpnessAware:
    """SAM during a part of training."""
    return SharpnessAware(base, rho, when=rules.Window(start, stop), **options)
