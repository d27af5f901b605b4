"""The landscapes of the explorer: functions of two weights, where one may start, and the values to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fenland.lab.replicas import Beale, Problem, Quadratic, Quartic, Saddle

MOMENTA = (0.0, 0.5, 0.9)
Point = tuple[float, float]


@dataclass(frozen=True)
class Landscape:
    """One function with everything that the page lets people choose on it."""

    name: str  # in addresses and files
    title: str  # for people
    formula: str  # in plain text
    about: str  # one sentence of what there is to see
    problem: Problem  # the function
    window: tuple[float, float, float, float]  # what the picture shows: least and largest x, least and largest y
    minima: tuple[Point, ...]  # points to reach
    saddle: Point | None  # a point that may hold a trajectory; None where there is none
    starts: tuple[Point, ...]  # points to start from, for the picture
    radii: tuple[float, ...]  # rho to choose from, ascending
    rates: tuple[float, ...]  # learning rates to choose from, ascending
    steps: int  # after which a start counts as having reached a minimum or not
    tolerance: float  # distance to a minimum that counts as reached
    home: float  # distance to a minimum within which SAM counts as staying there; it never comes to rest

    @property
    def spread(self) -> tuple[Point, Point]:
        """Middle of the window, and the farthest that a stored point may be from it: twice the window's half."""
        x0, x1, y0, y1 = self.window
        return ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - x0, y1 - y0)

    def hessian(self, point: Point) -> Tensor:
        """The 2 x 2 Hessian at a point, by automatic differentiation."""
        w = torch.tensor(point, dtype=torch.float64)
        value = self.problem.value
        rows = torch.func.jacrev(torch.func.jacrev(lambda p: value([p[:1], p[1:]])[0]))
        found: Tensor = rows(w)
        return found

    def curvatures(self, point: Point) -> list[float]:
        """Eigenvalues of the Hessian there, ascending (loss / w^2)."""
        values: list[float] = torch.linalg.eigvalsh(self.hessian(point)).tolist()
        return values


LANDSCAPES = (
    Landscape(
        "quartic", "Quartic", "x⁴/4 − x·y + y²/2",
        "Two minima of equal depth and a saddle between them. From Tan et al. 2025, arXiv 2401.07250, Fig. 2.",
        Quartic(), (-2.0, 2.0, -2.0, 2.0), ((1.0, 1.0), (-1.0, -1.0)), (0.0, 0.0),
        ((-0.4, 1.7), (1.8, -0.6), (0.12, -0.15), (-1.7, 0.9), (0.5, -1.8)),
        (0.05, 0.1, 0.3, 0.8, 2.0), (0.03, 0.1, 0.2, 0.4, 0.55, 0.8, 1.3), 120, 0.05, 0.7,
    ),
    Landscape(
        "saddle", "Saddle", "x² − y² + y⁴/4",
        "A saddle of eigenvalues 2 and −2 between two minima. Past rho·2 = 1 it holds the unnormalised ascent.",
        Saddle(1.0, 0.25), (-2.0, 2.0, -2.2, 2.2), ((0.0, 2.0**0.5), (0.0, -(2.0**0.5))), (0.0, 0.0),
        ((1.5, 0.1), (-1.2, -0.5), (1.7, 2.0), (0.05, 0.02), (-0.6, 0.8)),
        (0.05, 0.1, 0.3, 0.6, 1.2), (0.02, 0.08, 0.2, 0.35, 0.46, 0.65, 1.1), 120, 0.05, 0.7,
    ),
    Landscape(
        "beale", "Beale", "(1.5 − x + x·y)² + (2.25 − x + x·y²)² + (2.625 − x + x·y³)²",
        "A long curved valley with steep walls: the largest curvature at the minimum is 160 times the least.",
        Beale(), (-0.6, 4.4, -1.2, 1.6), ((3.0, 0.5),), (0.0, 1.0),
        ((1.0, -0.8), (3.9, 0.1), (0.3, 1.15), (1.6, 0.6), (0.05, 0.95)),
        (0.005, 0.02, 0.05, 0.1, 0.3), (0.002, 0.005, 0.012, 0.025, 0.038, 0.055, 0.09), 200, 0.25, 0.25,
    ),
    Landscape(
        "quadratic", "Quadratic", "x²/2 + 10·y²/2",
        "One minimum and two curvatures, 1 and 10. The predicted limits are exact here.",
        Quadratic((1.0, 10.0)), (-2.0, 2.0, -1.5, 1.5), ((0.0, 0.0),), None,
        ((-1.7, 1.2), (1.8, 0.15), (0.4, -1.3), (0.1, 0.05), (-1.0, -0.6)),
        (0.02, 0.05, 0.1, 0.3, 1.0), (0.01, 0.03, 0.08, 0.15, 0.19, 0.26, 0.45), 120, 0.05, 100.0,
    ),
)  # fmt: skip
