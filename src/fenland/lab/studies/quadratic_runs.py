"""What the study `quadratic` measures: rates, cycles, gamma and noise floors of replicas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from fenland.lab.study.analytic import one_thread

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fenland.lab.replicas import Problem


def rates(
    eigenvalues: Sequence[float], method: str, rho: float, lrs: Sequence[float], steps: int, starts: int, seed: int
) -> pd.DataFrame:
    """Factor by which ||w|| changes a step, over the last half of a run: ``lr, low, rate, high`` over starts.

    A start that has come below 1e-140 by then counts with its rate so far, one that is lost with infinity. SAM's own
    number is 1: it stays on its cycle.
    """
    import torch

    from fenland.lab.replicas import Quadratic, grid, run

    problem = Quadratic(tuple(eigenvalues))
    half = steps // 2
    with one_thread():
        plan = grid(_points(problem, starts, seed), rho=rho, lr=lrs)
        done = run(problem, method, plan, steps, bound=1e100, sample_every=half)
        sizes = torch.stack([problem.unpack([x[t] for x in done.samples]).norm(dim=1) for t in range(3)])
    later = (sizes[2] / sizes[1]).log() / half
    sooner = (sizes[1] / sizes[0]).log() / half
    tiny = sizes[2] < 1e-140
    rate = torch.where(tiny, torch.where(sizes[1] > 1e-140, sooner, -math.inf), later).exp()
    rate = torch.where(done.lost >= 0, math.inf, rate).reshape(len(lrs), starts)
    return pd.DataFrame(
        {
            "method": method, "rho": rho, "lr": list(lrs), "low": rate.min(1).values.tolist(),
            "rate": rate.median(1).values.tolist(), "high": rate.max(1).values.tolist(),
        }
    )  # fmt: skip


def cycles(curvature: float, radii: Sequence[float], lrs: Sequence[float], steps: int, starts: int) -> pd.DataFrame:
    """Final distance of normalised SAM in one mode: ``rho, lr, low, distance, high`` over starts."""
    from fenland.lab.replicas import Quadratic, grid, run

    problem = Quadratic((curvature,))
    with one_thread():
        plan = grid(_points(problem, starts, 1), rho=radii, lr=lrs)
        done = run(problem, "SAM", plan, steps)
    distance = done.w[0].abs().reshape(len(radii), len(lrs), starts)
    rows = []
    for i, rho in enumerate(radii):
        for j, lr in enumerate(lrs):
            here = distance[i, j]
            rows.append(
                {
                    "rho": rho, "lr": lr, "low": float(here.min()), "distance": float(here.median()),
                    "high": float(here.max()),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def gammas(
    eigenvalues: Sequence[float], method: str, radii: Sequence[float], lr: float, steps: int, starts: int
) -> pd.DataFrame:
    """||g|| / ||h|| along trajectories: ``method, rho, steps, low, gamma, high`` over starts."""
    from fenland.lab.replicas import Quadratic, grid, run

    problem = Quadratic(tuple(eigenvalues))
    with one_thread():
        done = run(problem, method, grid(_points(problem, starts, 2), rho=radii, lr=lr), steps, sample_every=1)
        rows = []
        for t, step in enumerate(done.sampled):
            w = problem.unpack([x[t] for x in done.samples])
            gamma = _gamma(problem, w, radii, starts, method)
            for i, rho in enumerate(radii):
                here = gamma[i]
                rows.append(
                    {
                        "method": method, "rho": rho, "steps": step, "low": float(here.min()),
                        "gamma": float(here.median()), "high": float(here.max()),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _gamma(problem: Problem, w: Tensor, radii: Sequence[float], starts: int, method: str) -> Tensor:
    """Gamma at points (R, n), measured with two gradients as the optimizer does: (radii, starts)."""
    import torch

    rho = torch.tensor(radii, dtype=torch.float64).repeat_interleave(starts)[:, None]
    g = problem.unpack(problem.gradient(problem.pack(w)))
    length = g.norm(dim=1, keepdim=True)
    e = rho * g if method in ("USAM", "SSAM-U") else rho * g / length
    h = problem.unpack(problem.gradient(problem.pack(w + e)))
    gamma: Tensor = (length[:, 0] / h.norm(dim=1)).reshape(len(radii), starts)
    return gamma


def floors(
    curvature: float, radii: Sequence[float], lr: float, std: float, where: str, steps: int, paths: int, seed: int
) -> pd.DataFrame:
    """Mean of w^2 of USAM under gradient noise in one mode, by steps: ``noise, rho, steps, mean, error``.

    The error is the standard error over independent paths. Paths begin at the minimum.
    """
    import torch

    from fenland.lab.replicas import Noise, Quadratic, grid, run

    problem = Quadratic((curvature,))
    start = problem.pack(torch.zeros(paths, 1, dtype=torch.float64))
    noise = Noise(std, where, seed)  # type: ignore[arg-type]  # checked there
    with one_thread():
        done = run(problem, "USAM", grid(start, rho=radii, lr=lr), steps, noise=noise, sample_every=max(1, steps // 40))
    squares = (done.samples[0] ** 2).reshape(len(done.sampled), len(radii), paths)
    mean, error = squares.mean(2), squares.std(2) / math.sqrt(paths)
    return pd.DataFrame(
        {
            "noise": where, "rho": rho, "steps": step, "mean": float(mean[t, i]), "error": float(error[t, i]),
        }
        for i, rho in enumerate(radii)
        for t, step in enumerate(done.sampled)
    )  # fmt: skip


def _points(problem: Problem, starts: int, seed: int) -> list[torch.Tensor]:
    """Standard normal points."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return problem.pack(torch.randn(starts, problem.size, generator=generator, dtype=torch.float64))
