"""XSAM: the position on the arc from g to h is the one whose point has the highest loss."""

from __future__ import annotations

from dataclasses import dataclass

from fenland.algebra import inverse
from fenland.arguments import check_number, check_positive, check_whole
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.requests import Grad, Highest, Program, Update
from fenland.rules.two_gradient import arc


@dataclass(frozen=True)
class SphericalSearch(Method):
    r"""d = ||h|| * slerp(g / ||g||, h / ||h||; alpha), alpha being searched for on step 0, every, 2 * every, ...

    The search takes the alpha of the grid whose point w + rho_max * d / ||d|| has the highest loss on the batch, at one
    more closure call a value. Source: Chen and Zhou 2026, arXiv 2603.10048 (XSAM).

    Attributes:
        grid: the values of alpha that a search compares.
        rho_max: radius of the search (unit of w). 0.3: the authors' README for CIFAR-100.
        every: steps between searches. 100: ours; the paper's period was not at hand.
        alpha: until the first search.
    """

    grid: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    rho_max: float = 0.3
    every: int = 100
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        for alpha in self.grid:
            check_number("grid", alpha)
        check_positive("rho_max", self.rho_max, "no search (grid=())")
        check_whole("every", self.every, 1)

    @property
    def searches(self) -> bool:
        return True

    @property
    def numbers(self) -> dict[str, float]:
        return {"alpha": float(self.alpha)}

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if not s.due(g):
            yield Update(g)
            return
        h = yield Grad(at=s.climb(g), keep=g)
        if s.count % self.every == 0:
            unit = self.rho_max * inverse(h.norm)
            s.put("alpha", (yield Highest({alpha: arc(g, h, alpha) * unit for alpha in self.grid})))
        yield Update(arc(g, h, s.get("alpha")))
