"""Functions of two weights: critical points with their curvatures, and the flow of a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Coordinates, Problem
from fenland.lab.replicas.trajectories import run


@dataclass(frozen=True)
class Himmelblau(Coordinates):
    """f = (x^2 + y - 11)^2 + (x + y^2 - 7)^2: four minima with f = 0, four saddles, one maximum; it grows outwards.

    Source: Himmelblau 1972, Applied Nonlinear Programming.
    """

    def formula(self, xs: list[Tensor]) -> Tensor:
        x, y = xs
        return (x * x + y - 11).square() + (x + y * y - 7).square()

    def slopes(self, xs: list[Tensor]) -> list[Tensor]:
        x, y = xs
        a, b = x * x + y - 11, x + y * y - 7
        return [4 * x * a + 2 * b, 2 * a + 4 * y * b]


@dataclass(frozen=True)
class Critical:
    """A point without gradient."""

    x: float  # coordinate
    y: float  # coordinate
    least: float  # smallest eigenvalue of the Hessian there (loss / w^2)
    greatest: float  # largest
    down: tuple[float, float]  # unit vector of the smallest


@lru_cache(maxsize=16)
def critical_points(problem: Problem, guesses: Sequence[tuple[float, float]]) -> tuple[Critical, ...]:
    """Newton's method from each guess, the Hessian by central differences of the exact gradient."""
    found = []
    for guess in guesses:
        w = torch.tensor([guess], dtype=torch.float64)
        for _ in range(50):
            w = w - torch.linalg.solve(hessian(problem, w), gradient(problem, w))
        values, vectors = torch.linalg.eigh(hessian(problem, w)[0])
        x, y = w[0].tolist()
        down = vectors[:, 0].tolist()
        found.append(Critical(x, y, float(values[0]), float(values[1]), (down[0], down[1])))
    return tuple(found)


def gradient(problem: Problem, points: Tensor) -> Tensor:
    """grad f at points (R, 2)."""
    return problem.unpack(problem.gradient(problem.pack(points)))


def hessian(problem: Problem, points: Tensor, step: float = 1e-5) -> Tensor:
    """Hessians (R, 2, 2) at points (R, 2), by central differences."""
    rows = []
    for i in range(2):
        e = torch.zeros_like(points)
        e[:, i] = step
        rows.append((gradient(problem, points + e) - gradient(problem, points - e)) / (2 * step))
    whole = torch.stack(rows, 1)
    return (whole + whole.mT) / 2


def field(problem: Problem, method: str, points: Tensor, rho: float | Tensor) -> Tensor:
    """-d at points (R, 2): the direction and speed of the method's flow, from one step with lr = 1."""
    plan = grid(problem.pack(points), rho=0.0, lr=1.0)
    if isinstance(rho, Tensor):
        plan.rho.copy_(rho)
    else:
        plan.rho.fill_(rho)
    return problem.unpack(run(problem, method, plan, 1).w) - points


def flow(problem: Problem, method: str, points: Tensor, rho: float | Tensor, dt: float, count: int) -> list[Tensor]:
    """w' = -d(w) from points (R, 2), by the classical Runge-Kutta method: count + 1 positions."""
    path = [points]
    for _ in range(count):
        w = path[-1]
        k1 = field(problem, method, w, rho)
        k2 = field(problem, method, w + dt / 2 * k1, rho)
        k3 = field(problem, method, w + dt / 2 * k2, rho)
        k4 = field(problem, method, w + dt * k3, rho)
        path.append(w + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return path
