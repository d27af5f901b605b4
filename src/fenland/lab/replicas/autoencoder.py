"""Trajectories of the linear autoencoder from near its saddle: losses, escapes and the growth beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fenland.lab.replicas.factors import LinearAutoencoder
from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.threads import one_thread
from fenland.lab.replicas.trajectories import run


def loss_curves(
    method: str, radii: Sequence[float], *, n: int, normalization: Any, lr: float, steps: int, deviation: float,
    seeds: Sequence[int], escaped: float,
) -> pd.DataFrame:  # fmt: skip
    """Loss by steps of each radius and seed, with the step of escape (NaN: never), growth and norms."""
    problem = LinearAutoencoder(n, normalization)
    start = _start(n, deviation, seeds)
    target = escaped * problem.value(start)
    goals = target.repeat(len(radii))
    every = max(1, steps // 250)
    with one_thread():
        plan = grid(start, rho=radii, lr=lr)
        # One block holds 20 replicas of this problem, so the goal has to find its own rows: one for all is the least.
        lowest = float(goals.min())
        done = run(problem, method, plan, steps, reached=lambda w: problem.value(w) <= lowest, sample_every=every)
        losses = torch.stack([problem.value([x[t] for x in done.samples]) for t in range(len(done.sampled))])
    hit = done.lost if done.first_hit is None else done.first_hit
    first, second = start
    descending = descending_part(start)
    sizes = torch.stack([descending_part([x[t] for x in done.samples]) for t in range(len(done.sampled))])
    length = torch.stack([first.flatten(1).norm(dim=1), second.flatten(1).norm(dim=1)]).norm(dim=0)
    end = torch.stack([x.flatten(1).norm(dim=1) for x in done.w]).norm(dim=0)
    parts = []
    for i, rho in enumerate(radii):
        for j, seed in enumerate(seeds):
            k = i * len(seeds) + j
            taken = int(hit[k])
            parts.append(
                pd.DataFrame(
                    {
                        "method": method, "rho": rho, "seed": seed, "steps": done.sampled,
                        "loss": losses[:, k].tolist(), "hit": float(taken) if taken >= 0 else math.nan,
                        "rate": growth(done.sampled, sizes[:, k].tolist()), "start": float(length[j]),
                        "descending": float(descending[j]), "length": float(end[k]),
                    }
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def descending_part(w: Sequence[Tensor]) -> Tensor:
    """Norm of the part of each point in the eigenspace of -m, which is W1 = W2^T: (R,)."""
    first, second = w
    size: Tensor = ((first + second.mT) / math.sqrt(2)).flatten(1).norm(dim=1)
    return size


def growth(steps: Sequence[int], sizes: Sequence[float]) -> float:
    """Rate a step at which the descending part grows while it is 1.5 to 3 times its first size; NaN if it does not.

    That is late enough for a rule that looks at ||g|| to have lost the other part, and early enough to be near.
    """
    inside = [(t, size) for t, size in zip(steps, sizes, strict=True) if 1.5 <= size / sizes[0] <= 3]
    if len(inside) < 2 or inside[-1][0] == inside[0][0] or sizes[-1] < 3 * sizes[0]:
        return math.nan
    return math.log(inside[-1][1] / inside[0][1]) / (inside[-1][0] - inside[0][0])


def _start(n: int, deviation: float, seeds: Sequence[int]) -> list[Tensor]:
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        draws.append(torch.randn(2, n, n, generator=generator, dtype=torch.float64) * deviation)
    both = torch.stack(draws, 1)
    return [both[0].contiguous(), both[1].contiguous()]
