"""Methods that keep something between steps: LookSAM a vector, XSAM a number that it searches for."""

from __future__ import annotations

from dataclasses import dataclass

from fenland.algebra import inverse, project, ratio
from fenland.arguments import check_number, check_positive, check_whole
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.requests import Grad, Highest, Program, Update
from fenland.rules.two_gradient import arc


@dataclass(frozen=True)
class Reuse(Method):
    r"""d = h, and v = h - <h, g> g / ||g||^2 is kept; on steps without ascent d = g + alpha * (||g|| / ||v||) * v.

    Goes with `when=EveryK(k)`; k = 1 is SAM. Before the first ascent d = g. v ages up to k - 1 steps.
    Source: Liu, Mai, Chen, Hsieh, You 2022, arXiv 2203.02714 (LookSAM); the official repository holds no code.

    Attributes:
        alpha: weight of v. 0.7: the value of the known ports.
    """

    alpha: float = 0.7

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    keeps = ("v",)

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if s.due(g):
            h = yield Grad(at=s.climb(g), keep=g)
            s.put("v", h - project(h, g))
            yield Update(h)
            return
        v = s.get("v")
        yield Update(g if v is None else g + v * (self.alpha * ratio(g.norm, v.norm)))


@dataclass(frozen=True)
class SphericalSearch(Method):
    r"""d = ||h|| * slerp(g / ||g||, h / ||h||; alpha), alpha being searched for on step 0, every, 2 * every, ...

    Where such a step does not ascend (`when`), the next one that does searches.
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
        if not isinstance(self.grid, (tuple, list)) or not self.grid:
            raise TypeError(f"grid = {self.grid!r}: must be a non-empty tuple of numbers, such as (0.0, 0.5, 1.0)")
        for alpha in self.grid:
            check_number("grid", alpha)
        check_positive("rho_max", self.rho_max)
        check_whole("every", self.every, 1)

    searches = True

    @property
    def numbers(self) -> dict[str, float]:
        return {"alpha": float(self.alpha), "searched": -1.0}  # the step of the last search; below 0: none yet

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if not s.due(g):
            yield Update(g)
            return
        h = yield Grad(at=s.climb(g), keep=g)
        searched = int(s.get("searched"))  # of several micro-batches each has its own search
        if searched in (-1, s.count) or s.count // self.every > searched // self.every:
            s.put("searched", s.count)
            unit = self.rho_max * inverse(h.norm)
            s.put("alpha", (yield Highest({alpha: arc(g, h, alpha) * unit for alpha in self.grid})))
        yield Update(arc(g, h, s.get("alpha")))
