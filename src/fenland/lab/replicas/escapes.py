"""How many steps it takes to leave a saddle, under gradient noise and without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Quadratic
from fenland.lab.replicas.trajectories import Noise, run
from fenland.theory.diffusion import displacement

_QUARTILE = 0.67448975  # |standard normal| stays below it with probability 1/2
_Z = 1.959964


def escapes(
    method: str,
    rho: float,
    lr: float,
    momentum: float,
    batches: Sequence[int],
    *,
    strength: float,
    std: float,
    radius: float,
    paths: int,
    steps: int,
    seed: int,
) -> pd.DataFrame:
    """First steps at which paths from the saddle of x^2*m/2 - y^2*m/2 have |y| >= radius: rows ``batch, path, step``.

    Noise is normal, one draw in both passes, of standard deviation std / sqrt(B) in each coordinate; ``step`` is NaN
    where a path has not left within ``steps``.
    """
    problem = Quadratic((strength, -strength))
    count = paths * len(batches)
    noise = Noise(
        std / torch.tensor(list(batches), dtype=torch.float64).repeat_interleave(paths).sqrt(), "shared", seed
    )
    plan = grid(problem.pack(torch.zeros(count, 2)), rho=rho, lr=lr, momentum=momentum)
    # Beyond the radius nothing is asked any more: a bound keeps the numbers finite.
    out = run(
        problem, method, plan, steps, reached=lambda w: w[1].abs() >= radius, bound=100 * radius, noise=noise,
        engine="plain",
    )  # fmt: skip
    hit = out.first_hit
    if hit is None:
        raise RuntimeError("no goal was given")
    step = hit.to(torch.float64).where(hit >= 0, torch.tensor(math.nan, dtype=torch.float64)).numpy()
    return pd.DataFrame(
        {"batch": np.repeat(batches, paths), "path": np.tile(np.arange(paths), len(batches)), "step": step}
    )


def median(steps: pd.Series[float]) -> tuple[float, float, float]:
    """Median with its 95 % interval by order statistics; what never left counts as infinitely late."""
    ordered = np.sort(steps.fillna(np.inf).to_numpy(float))
    n = len(ordered)
    half = _Z * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return float(ordered[n // 2]), float(ordered[low]), float(ordered[high])


def predicted(
    method: str, rho: float, lr: float, momentum: float, batch: int, strength: float, std: float, radius: float
) -> float:
    """Steps after which half of the paths of SGD or USAM lie beyond the radius, by the exact spread of y_t; else NaN.

    y_t is normal with variance `fenland.theory.diffusion.displacement`, and lies beyond with probability 1/2 once
    0.674 standard deviations reach the radius. The first visit is a little earlier. Infinite where that never comes.
    """
    if method not in ("SGD", "USAM"):
        return math.nan

    def beyond(t: int) -> bool:
        spread = displacement(-strength, lr, rho, std / batch**0.5, t, "shared", momentum=momentum)
        return bool(_QUARTILE * spread**0.5 >= radius)

    high = 1
    while not beyond(high):
        high *= 2
        if high > 10**7:
            return math.inf
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return float(high)
