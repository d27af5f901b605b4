"""Where normalised SAM comes to rest at no critical point (arXiv 2509.21818): on a wave, and between two wells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Problem
from fenland.lab.replicas.rules import rule
from fenland.lab.replicas.toys import UnequalWells, Wave, spread
from fenland.lab.replicas.trajectories import run
from fenland.rules import Window

FLAT = 1e-2  # |g| below which a point is critical
STILL = 1e-6  # |h| below which the steps have stopped
LAST = 60  # steps more, whose signs tell a rest, and SSAM's cycle around one, from cycles around critical points


def fates(
    problem: Problem, low: float, high: float, rhos: Sequence[float], lr: float, steps: int, starts: int,
    warm: int = 0, method: str = "SAM",
) -> pd.DataFrame:  # fmt: skip
    """Shares of starts by where they end: ``method, rho, warm, minimum, maximum, hallucinated, slope, loss``.

    Starts are spread over [low, high]. One is hallucinated where the slope g keeps its sign and is not 0, while the
    steps' own h has vanished or changes sign (SSAM's steps have the length of g and go to and fro). Else it is at the
    nearer kind of critical point: in a cycle around one, h leads there as long as g keeps its sign. ``slope`` is the
    mean |g| of the hallucinated ones, ``loss`` the mean loss of all.
    """
    whole = rule(method)
    chosen = replace(whole, when=Window(warm), name=method)
    given = grid([spread(low, high, starts)], rho=rhos, lr=lr)
    w = run(problem, chosen, given, steps, engine="plain").w
    last = run(problem, whole, replace(given, start=w), LAST, sample_every=1, engine="plain").samples[0]
    kinds = _kinds(problem, last, given.rho)
    slope, loss = problem.gradient(w)[0].abs(), problem.value(w)
    rows = []
    for place, rho in enumerate(rhos):
        own = slice(place * starts, (place + 1) * starts)
        stalled = kinds[own] == 2
        shares = [(kinds[own] == kind).double().mean().item() for kind in range(3)]
        mean = slope[own][stalled].mean().item() if stalled.any() else math.nan
        rows.append([method, float(rho), warm, *shares, mean, loss[own].mean().item()])
    names = ["method", "rho", "warm", "minimum", "maximum", "hallucinated", "slope", "loss"]
    return pd.DataFrame(rows, columns=names)


def _kinds(problem: Problem, last: Tensor, rho: Tensor) -> Tensor:
    """0 at a minimum, 1 at a maximum, 2 hallucinated: (R,) of the last steps (steps, R)."""
    g = problem.gradient([last])[0]
    h = problem.gradient([last + rho * g.sign()])[0]
    slope = (g.sign() == g[0].sign()).all(0) & (g.abs() > FLAT).all(0)
    rests = (h.abs() < STILL).all(0) | (h.sign() != h[0].sign()).any(0)
    near = (_from_maximum(problem, last[0]) < _from_minimum(problem, last[0])).double()
    return torch.where(slope & rests, 2.0, near)


def _from_minimum(problem: Problem, w: Tensor) -> Tensor:
    if isinstance(problem, UnequalWells):
        return torch.minimum(w.abs(), (w - problem.a).abs())
    return _around(w, 0.0)


def _from_maximum(problem: Problem, w: Tensor) -> Tensor:
    return (w - problem.b).abs() if isinstance(problem, UnequalWells) else _around(w, math.pi)


def _around(w: Tensor, centre: float) -> Tensor:
    """Distance from the nearest of centre + 2*pi*k."""
    return (torch.remainder(w - centre + math.pi, 2 * math.pi) - math.pi).abs()


def wave(rhos: Sequence[float], lr: float, steps: int, starts: int, warm: int = 0, method: str = "SAM") -> pd.DataFrame:
    """`fates` on 1 - cos(w), starts over a period."""
    return fates(Wave(), -math.pi, math.pi, rhos, lr, steps, starts, warm, method)


def wells(
    rhos: Sequence[float], lr: float, steps: int, starts: int, warm: int = 0, method: str = "SAM"
) -> pd.DataFrame:
    """`fates` on two wells, a wide one at 0 and a narrow one at 4 behind a maximum at 3, starts between them."""
    return fates(UnequalWells(), 0.0, 4.0, rhos, lr, steps, starts, warm, method)
