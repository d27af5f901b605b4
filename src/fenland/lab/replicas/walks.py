"""Paths that start on a critical point under gradient noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import fenland
from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Quadratic
from fenland.lab.replicas.trajectories import Noise, run

GROUPS = 20  # of paths: each gives one estimate, and intervals are over the groups


@dataclass(frozen=True)
class Walk:
    """What all paths share."""

    strength: float  # m; the modes have curvature +m and -m (loss / w^2)
    lr: float  # eta
    steps: int  # taken
    every: int  # steps between two samples
    paths: int  # number of them, a multiple of `GROUPS`
    seed: int = 0  # of the noise, and of the data and mini-batches

    @property
    def curvatures(self) -> tuple[float, float]:
        """l of the two modes."""
        return self.strength, -self.strength


def replicas(
    walk: Walk, method: str, model: Literal["shared", "independent", "descent"], rho: float, batch: int
) -> pd.DataFrame:
    """Paths from the origin with normal gradient noise of variance |l| / B; a seed gives every radius the same draws.

    Columns: ``curvature, step, group, msd`` (unit w^2).
    """
    problem = Quadratic(walk.curvatures, split=False)
    std = (walk.strength / batch) ** 0.5
    start = grid([torch.zeros(walk.paths, 2, dtype=torch.float64)], rho=rho, lr=walk.lr)
    noise = Noise(std, model, walk.seed)
    out = run(problem, method, start, walk.steps, noise=noise, sample_every=walk.every, engine="plain")
    return _long(out.samples[0], out.sampled, walk.curvatures)


def optimizer(walk: Walk, inputs: str, rho: float, batch: int, samples: int) -> pd.DataFrame:
    """Paths of `fenland.USAM` over SGD on least squares, each step one mini-batch that both passes see.

    One mode is f(w) = sign(l) * mean_i (a_i w - b_i)^2 / 2 over a data set of ``samples`` rows, with mean a^2 = |l|,
    mean a*b = 0 and mean b^2 = 1: w = 0 is its critical point, l its curvature, and the gradient of a batch has the
    variance |l| / B. All paths are one parameter: the unnormalised ascent moves each by its own gradient alone.
    rho = 0 is plain SGD.

    Args:
        walk: what all paths share.
        inputs: "signs": a_i = +-sqrt(|l|), no batch has another curvature; "normal": normal a_i, whose batches have.
        rho: radius of the unnormalised ascent.
        batch: B, drawn with replacement.
        samples: rows of the data set.
    """
    a, b = data(inputs, walk.strength, samples, walk.seed)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    w = torch.zeros(walk.paths, 2, dtype=torch.float64, requires_grad=True)
    opt = fenland.USAM(torch.optim.SGD([w], lr=walk.lr), rho=rho)
    draws = torch.Generator().manual_seed(1_000_003 * (walk.seed + 1))
    kept = [w.detach().clone()]
    for step in range(1, walk.steps + 1):
        rows = torch.randint(samples, (batch, walk.paths, 2), generator=draws)
        opt.step(_closure(opt, w, a[rows], b[rows], sign))
        if step % walk.every == 0:
            kept.append(w.detach().clone())
    return _long(torch.stack(kept), list(range(0, walk.steps + 1, walk.every)), walk.curvatures)


def _closure(opt: fenland.SharpnessAware, w: Tensor, a: Tensor, b: Tensor, sign: Tensor) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        opt.zero_grad()
        loss = (sign * (a * w - b).square().mean(0) / 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return closure


def data(inputs: str, strength: float, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs a and targets b, each (samples,), with mean a^2 = strength, mean a*b = 0 and mean (a*b)^2 = strength."""
    draws = torch.Generator().manual_seed(seed)
    a = torch.randn(samples, generator=draws, dtype=torch.float64)
    if inputs == "signs":
        a = a.sign()
    b = torch.randn(samples, generator=draws, dtype=torch.float64)
    a = a * (strength / a.square().mean()).sqrt()
    b = b - a * (a * b).mean() / a.square().mean()
    return a, b * (strength / (a * b).square().mean()).sqrt()


def _long(samples: Tensor, sampled: list[int], curvatures: tuple[float, ...]) -> pd.DataFrame:
    """Mean w^2 of each group: samples (T, paths, modes) as rows ``curvature, step, group, msd``."""
    means = samples.square().reshape(len(samples), GROUPS, -1, samples.shape[2]).mean(2).numpy()  # (T, GROUPS, modes)
    times, groups, modes = means.shape
    return pd.DataFrame(
        {
            "curvature": np.tile(np.array(curvatures), times * groups),
            "step": np.repeat(np.array(sampled), groups * modes),
            "group": np.tile(np.repeat(np.arange(groups), modes), times),
            "msd": means.reshape(-1),
        }
    )
