"""How many starts reach a minimum of the quartic, are lost, or are held at its saddle."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from fenland.lab.replicas.grids import Grid, grid
from fenland.lab.replicas.problems import Quartic
from fenland.lab.replicas.threads import one_thread
from fenland.lab.replicas.trajectories import run


def success(
    method: str, rho: float, lrs: list[float], *, starts: int, box: float, steps: int, tolerance: float, seed: int
) -> pd.DataFrame:
    """How many starts succeed, are lost, or are held at the saddle, and where the others end."""
    problem = Quartic()
    generator = torch.Generator().manual_seed(seed)
    points = (2 * torch.rand(starts, 2, generator=generator, dtype=torch.float64) - 1) * box
    plan = grid(problem.pack(points), rho=rho, lr=lrs)
    with one_thread():
        done = run(problem, method, plan, steps, bound=1e3)
        # These rules keep nothing between steps: a run from the last points is the next step.
        after = run(problem, method, Grid(plan.rho, plan.lr, plan.momentum, done.w, plan.shape), 1, bound=1e3)
    w = problem.unpack(done.w).reshape(len(lrs), starts, 2)
    away = torch.stack([(w - torch.tensor(point, dtype=torch.float64)).norm(dim=-1) for point in problem.minima])
    distance = away.min(0).values
    lost = (done.lost >= 0).reshape(len(lrs), starts)
    # The normalised ascent is drawn to the saddle where ||g|| < rho*m; what it has caught stays within |w| <= rho.
    held = (w.norm(dim=-1) <= max(rho, tolerance)) & ~lost
    free = ~(lost | held)
    jump = (problem.unpack(after.w).reshape(w.shape) - w).norm(dim=-1) / 2
    return pd.DataFrame(
        {
            "method": method, "rho": rho, "lr": lrs, "starts": starts,
            "successes": ((distance <= tolerance) & ~lost).sum(1).tolist(), "lost": lost.sum(1).tolist(),
            "held": held.sum(1).tolist(), "distance": _median(distance, free), "amplitude": _median(jump, free),
        }
    )  # fmt: skip


def _median(values: Tensor, which: Tensor) -> list[float]:
    numbers: list[float] = torch.where(which, values, torch.nan).nanmedian(1).values.tolist()
    return numbers
