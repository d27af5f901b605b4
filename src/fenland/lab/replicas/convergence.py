"""Trajectories on quadratics: factor a step, final cycles, gamma, and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Problem, Quadratic
from fenland.lab.replicas.threads import one_thread
from fenland.lab.replicas.trajectories import Noise, run

UNNORMALISED = ("USAM", "SSAM-U")


def rates(
    eigenvalues: Sequence[float], method: str, rho: float, lrs: Sequence[float], steps: int, starts: int, seed: int
) -> pd.DataFrame:
    """Factor by which ||w|| changes a step, over the last half of a run: ``lr, low, rate, high`` over starts.

    A start that has come below 1e-140 by then counts with its rate so far, one that is lost with infinity. SAM's own
    number is 1: it stays on its cycle.
    """
    problem, half = Quadratic(tuple(eigenvalues)), steps // 2
    with one_thread():
        plan = grid(_points(problem, starts, seed), rho=rho, lr=lrs)
        done = run(problem, method, plan, steps, bound=1e100, sample_every=half)
        sizes = torch.stack([problem.unpack([x[t] for x in done.samples]).norm(dim=1) for t in range(3)])
    later, sooner = ((sizes[k] / sizes[k - 1]).log() / half for k in (2, 1))
    rate = torch.where(sizes[2] < 1e-140, torch.where(sizes[1] > 1e-140, sooner, -math.inf), later).exp()
    rate = torch.where(done.lost >= 0, math.inf, rate).reshape(len(lrs), starts)
    return pd.DataFrame({"method": method, "rho": rho, "lr": list(lrs), **_spread(rate, "rate")})


def _spread(numbers: Tensor, name: str) -> dict[str, list[float]]:
    """Least, median and largest over starts, the last dimension, of numbers in rows."""
    flat = numbers.reshape(-1, numbers.shape[-1])
    return {
        "low": flat.min(1).values.tolist(), name: flat.median(1).values.tolist(), "high": flat.max(1).values.tolist()
    }  # fmt: skip


def cycles(curvature: float, radii: Sequence[float], lrs: Sequence[float], steps: int, starts: int) -> pd.DataFrame:
    """Final distance of normalised SAM in one mode: ``rho, lr, low, distance, high`` over starts."""
    problem = Quadratic((curvature,))
    with one_thread():
        done = run(problem, "SAM", grid(_points(problem, starts, 1), rho=radii, lr=lrs), steps)
    cells = pd.MultiIndex.from_product([radii, lrs], names=["rho", "lr"]).to_frame(index=False)
    return cells.assign(**_spread(done.w[0].abs().reshape(len(cells), starts), "distance"))


def gammas(
    eigenvalues: Sequence[float], method: str, radii: Sequence[float], lr: float, steps: int, starts: int
) -> pd.DataFrame:
    """||g|| / ||h|| along trajectories: ``method, rho, steps, low, gamma, high`` over starts."""
    problem = Quadratic(tuple(eigenvalues))
    with one_thread():
        done = run(problem, method, grid(_points(problem, starts, 2), rho=radii, lr=lr), steps, sample_every=1)
        found = [_gamma(problem, problem.unpack([x[t] for x in done.samples]), radii, starts, method)
                 for t in range(len(done.sampled))]  # fmt: skip
    cells = pd.MultiIndex.from_product([done.sampled, radii], names=["steps", "rho"]).to_frame(index=False)
    return cells.assign(method=method, **_spread(torch.stack(found), "gamma"))


def _gamma(problem: Problem, w: Tensor, radii: Sequence[float], starts: int, method: str) -> Tensor:
    """Gamma at points (R, n), measured with two gradients as the optimizer does: (radii, starts)."""
    rho = torch.tensor(radii, dtype=torch.float64).repeat_interleave(starts)[:, None]
    g = problem.unpack(problem.gradient(problem.pack(w)))
    length = g.norm(dim=1, keepdim=True)
    e = rho * g if method in UNNORMALISED else rho * g / length
    h = problem.unpack(problem.gradient(problem.pack(w + e)))
    gamma: Tensor = (length[:, 0] / h.norm(dim=1)).reshape(len(radii), starts)
    return gamma


def floors(
    curvature: float, radii: Sequence[float], lr: float, std: float, where: Any, steps: int, paths: int, seed: int
) -> pd.DataFrame:
    """Mean of w^2 of USAM under gradient noise in one mode, by steps: ``noise, rho, steps, mean, error``.

    The error is the standard error over independent paths. Paths begin at the minimum.
    """
    problem = Quadratic((curvature,))
    plan = grid(problem.pack(torch.zeros(paths, 1, dtype=torch.float64)), rho=radii, lr=lr)
    with one_thread():
        done = run(problem, "USAM", plan, steps, noise=Noise(std, where, seed), sample_every=max(1, steps // 40))
    squares = (done.samples[0] ** 2).reshape(len(done.sampled), len(radii), paths)
    cells = pd.MultiIndex.from_product([radii, done.sampled], names=["rho", "steps"]).to_frame(index=False)
    mean, error = (x.T.reshape(-1).tolist() for x in (squares.mean(2), squares.std(2) / math.sqrt(paths)))
    return cells.assign(noise=where, mean=mean, error=error)


def _points(problem: Problem, starts: int, seed: int) -> list[Tensor]:
    """Standard normal points."""
    generator = torch.Generator().manual_seed(seed)
    return problem.pack(torch.randn(starts, problem.size, generator=generator, dtype=torch.float64))
