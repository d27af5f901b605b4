"""Who is held at a saddle, and where the starts of a box end: discrete steps and the flow by the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.plane import Critical, Himmelblau, critical_points, field, flow, gradient
from fenland.lab.replicas.problems import Beale, Problem, Saddle
from fenland.lab.replicas.trajectories import run

ENDS = ("minimum", "saddle", "maximum", "elsewhere")
CLOSE = 1e-6  # distance of starts that are beside a saddle
_FAR = 10.0  # lost beyond this many times the size of the box


@dataclass(frozen=True)
class Stage:
    """A function with the setting it is studied in."""

    name: str  # for figures
    problem: Problem  # the function
    box: tuple[float, float, float, float]  # (x low, x high, y low, y high) of the starts
    lr: float  # of the discrete steps
    time: float  # eta * steps until the end is judged
    near: tuple[float, float]  # distance within which an end belongs to a (saddle or maximum, minimum)
    guesses: tuple[tuple[float, float], ...]  # where Newton's method starts for the critical points

    @property
    def critical(self) -> tuple[Critical, ...]:
        """Its critical points."""
        return critical_points(self.problem, self.guesses)

    @property
    def saddles(self) -> list[Critical]:
        """Points with eigenvalues of both signs."""
        return [p for p in self.critical if p.least < 0 < p.greatest]

    @property
    def minima(self) -> list[Critical]:
        """Points with positive eigenvalues."""
        return [p for p in self.critical if p.least > 0]


def stages(m: float, k: float) -> dict[str, Stage]:
    """The three functions: the plain saddle of strength m, confined by k; Beale's; Himmelblau's."""
    y = (m / (2 * k)) ** 0.5
    plain = Stage(
        "x² − m·y² + k·y⁴", Saddle(m, k), (-1.2 * y, 1.2 * y, -1.2 * y, 1.2 * y), 0.04 / m, 8.0 / m,
        (0.1 * y, 0.5 * y), ((0, 0), (0, y), (0, -y)),
    )  # fmt: skip
    beale = Stage("Beale", Beale(), (-1.0, 4.0, -1.0, 1.5), 1e-3, 4.0, (0.1, 0.6), ((3, 0.5), (0, 1)))
    himmelblau = Stage(
        "Himmelblau", Himmelblau(), (-5.0, 5.0, -5.0, 5.0), 1e-3, 1.0, (0.1, 0.5),
        ((3, 2), (-2.8, 3.1), (-3.8, -3.3), (3.6, -1.8), (-0.3, -0.9), (0.1, 2.9), (-3.1, -0.1), (-0.1, -1.95),
         (3.4, 0.1)),
    )  # fmt: skip
    return {"saddle": plain, "beale": beale, "himmelblau": himmelblau}


def starts(stage: Stage, count: int) -> Tensor:
    """A grid of count x count cell centres in the box, (count^2, 2), x runs fastest."""
    x0, x1, y0, y1 = stage.box
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    y, x = torch.meshgrid(y0 + (y1 - y0) * middle, x0 + (x1 - x0) * middle, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], 1)


def basins(stage: Stage, method: str, rhos: Sequence[float], count: int) -> pd.DataFrame:
    """Where discrete steps from every start end: rows ``rho, x, y, end`` (an index of `ENDS`)."""
    begin = starts(stage, count)
    plan = grid(stage.problem.pack(begin), rho=list(rhos), lr=stage.lr)
    size = _FAR * max(abs(x) for x in stage.box)
    out = run(stage.problem, method, plan, round(stage.time / stage.lr), bound=size)
    ends = classify(stage, stage.problem.unpack(out.w))
    ends[out.lost >= 0] = ENDS.index("elsewhere")
    cells = len(rhos)
    return pd.DataFrame(
        {
            "rho": np.repeat(np.asarray(rhos, float), len(begin)),
            "x": np.tile(begin[:, 0].numpy(), cells),
            "y": np.tile(begin[:, 1].numpy(), cells),
            "end": ends.numpy(),
        }
    )


def classify(stage: Stage, points: Tensor) -> Tensor:
    """The kind of critical point that each end lies at, an index of `ENDS`, (R,)."""
    ends = torch.full((len(points),), ENDS.index("elsewhere"), dtype=torch.int64)
    for point in stage.critical:
        kind = "minimum" if point.least > 0 else "maximum" if point.greatest < 0 else "saddle"
        away = (points - torch.tensor([[point.x, point.y]], dtype=torch.float64)).norm(dim=1)
        ends[away < stage.near[kind == "minimum"]] = ENDS.index(kind)
    return ends


def nearby(
    stage: Stage, saddle: Critical, method: str, rho: Tensor, begin: Tensor, how: str, slack: float = 0.0
) -> Tensor:
    """Whether starts (R, 2) with radii (R,) end nearer to the saddle, along its descending direction: bool (R,).

    Args:
        stage: the function.
        saddle: which.
        method: the rule.
        rho: radii.
        begin: starts.
        how: "flow" (Runge-Kutta) or "steps" (those of the stage).
        slack: a distance that counts as at the saddle: the normalised ascent never rests there.
    """
    time = 2 / abs(saddle.least)
    if how == "flow":
        # The normalised flow jumps across the ascending direction: the jumps, dt * greatest^2 * rho of gradient, must
        # stay below rho * |least|, or they throw the path out.
        dt = min(0.2 / max(abs(saddle.least), saddle.greatest), 0.5 * abs(saddle.least) / saddle.greatest**2)
        end = flow(stage.problem, method, begin, rho, dt, max(1, round(time / dt)))[-1]
    else:
        plan = grid(stage.problem.pack(begin), rho=0.0, lr=stage.lr)
        plan.rho.copy_(rho)
        end = stage.problem.unpack(run(stage.problem, method, plan, max(1, round(time / stage.lr))).w)
    before, after = (_along(saddle, x) for x in (begin, end))
    return after < before.clamp_min(slack)


def _along(saddle: Critical, points: Tensor) -> Tensor:
    away = points - torch.tensor([[saddle.x, saddle.y]], dtype=torch.float64)
    distance: Tensor = (away @ torch.tensor(saddle.down, dtype=torch.float64)).abs()
    return distance


def around(saddle: Critical, distance: float, count: int, seed: int) -> Tensor:
    """Starts on a circle around the saddle at random angles, (count, 2)."""
    angle = 2 * np.pi * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centre = torch.tensor([[saddle.x, saddle.y]], dtype=torch.float64)
    return centre + distance * torch.stack([angle.cos(), angle.sin()], 1)


def thresholds(stage: Stage, method: str, ratios: Sequence[float], count: int, how: str, seed: int) -> pd.DataFrame:
    """Unnormalised ascents near every saddle: rows ``saddle, strength, ratio, rho, captured, starts``.

    ``ratio`` is rho * |lambda|; captured are starts that end nearer to the saddle along its descending direction.
    They lie at a distance of ``CLOSE``: the threshold is one of the quadratic at the saddle.
    """
    rows = []
    for number, saddle in enumerate(stage.saddles):
        begin = around(saddle, CLOSE, count, seed + number)
        ratio = torch.tensor(list(ratios), dtype=torch.float64).repeat_interleave(count)
        held = nearby(stage, saddle, method, ratio / -saddle.least, begin.repeat(len(ratios), 1), how)
        for value, part in zip(ratios, held.reshape(len(ratios), count), strict=True):
            rows.append([number, -saddle.least, value, value / -saddle.least, int(part.sum()), count])
    return pd.DataFrame(rows, columns=["saddle", "strength", "ratio", "rho", "captured", "starts"])


def regions(stage: Stage, method: str, ratios: Sequence[float], count: int, how: str, seed: int) -> pd.DataFrame:
    """Normalised ascents near every saddle: rows ``saddle, strength, where, ratio, rho, captured, starts``.

    Starts lie at random angles ("around") or on the descending direction ("descending"), so far out that ||g|| is
    ``ratio`` times rho * |lambda|, with a radius rho = 0.001 that keeps the function quadratic there.
    """
    rho, rows = 1e-3, []
    for number, saddle in enumerate(stage.saddles):
        unit = torch.cat([_unit(saddle, where, count, seed + number) for where in ("around", "descending")])
        centre = torch.tensor([[saddle.x, saddle.y]], dtype=torch.float64)
        length = gradient(stage.problem, centre + 1e-6 * unit).norm(dim=1) / 1e-6  # ||g|| per distance
        begin = torch.cat([centre + (r * rho * -saddle.least / length)[:, None] * unit for r in ratios])
        radii = torch.full((len(begin),), rho, dtype=torch.float64)
        held = nearby(stage, saddle, method, radii, begin, how, slack=0.3 * rho)
        for value, part in zip(ratios, held.reshape(len(ratios), -1), strict=True):
            for where, here in (("around", part[:count]), ("descending", part[count:])):
                rows.append([number, -saddle.least, where, value, rho, int(here.sum()), here.numel()])
    return pd.DataFrame(rows, columns=["saddle", "strength", "where", "ratio", "rho", "captured", "starts"])


def _unit(saddle: Critical, where: str, count: int, seed: int) -> Tensor:
    if where == "around":
        return around(saddle, 1.0, count, seed) - torch.tensor([[saddle.x, saddle.y]], dtype=torch.float64)
    return torch.tensor([saddle.down, [-x for x in saddle.down]], dtype=torch.float64)


def portrait_field(stage: Stage, method: str, rho: float, count: int = 15) -> pd.DataFrame:
    """The flow's direction on a grid of cell centres: rows ``rho, x, y, u, v``, (u, v) of length 1 (0 at rest)."""
    points = starts(stage, count)
    arrows = field(stage.problem, method, points, rho)
    arrows = arrows / arrows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    columns = torch.cat([points, arrows], 1).numpy()
    return pd.DataFrame(columns, columns=["x", "y", "u", "v"]).assign(rho=rho)


def portrait_paths(stage: Stage, method: str, rho: float, count: int = 4, points: int = 150) -> pd.DataFrame:
    """Discrete steps from count x count starts: rows ``rho, start, sample, x, y``, sampled ever more seldom."""
    begin = starts(stage, count)
    size = _FAR * max(abs(x) for x in stage.box)
    steps = round(stage.time / 4 / stage.lr)
    every = max(1, steps // points)
    plan = grid(stage.problem.pack(begin), rho=rho, lr=stage.lr)
    out = run(stage.problem, method, plan, steps, bound=size, sample_every=every)
    samples = torch.stack(out.samples, 2)  # (T, R, 2)
    chosen = np.unique(np.geomspace(1, len(samples), points).astype(int)) - 1
    kept = samples[torch.as_tensor(chosen)].numpy()
    times, rows, _ = kept.shape
    return pd.DataFrame(
        {
            "rho": rho,
            "start": np.tile(np.arange(rows), times),
            "sample": np.repeat(chosen, rows),
            "x": kept[..., 0].reshape(-1),
            "y": kept[..., 1].reshape(-1),
        }
    )
