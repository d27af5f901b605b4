"""The single neuron of Dai, Ahn, Sra 2023, arXiv 2305.15287: how far y^2 falls under each method."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from fenland import theory
from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.toys import Neuron
from fenland.lab.replicas.trajectories import run


def neuron(
    method: str, rhos: Sequence[float], lr: float, starts: Sequence[tuple[float, float]], steps: int, every: int
) -> pd.DataFrame:
    """Trajectories: ``method, rho, lr, start, step, x, y2, predicted``, with `theory.neuron_end`."""
    problem = Neuron()
    start = problem.pack(torch.tensor(starts, dtype=torch.float64))
    out = run(problem, method, grid(start, rho=rhos, lr=lr), steps, sample_every=every, engine="plain")
    tables = []
    for place, rho in enumerate(rhos):
        for number in range(len(starts)):
            at = place * len(starts) + number
            tables.append(
                pd.DataFrame({
                    "method": method, "rho": float(rho), "lr": lr, "start": number, "step": out.sampled,
                    "x": out.samples[0][:, at].numpy(), "y2": out.samples[1][:, at].square().numpy(),
                    "predicted": theory.neuron_end(lr, rho, method),
                })
            )  # fmt: skip
    return pd.concat(tables, ignore_index=True)
