"""LookSAM: the sharpness direction of one step serves the next ones."""

from __future__ import annotations

from dataclasses import dataclass

from fenland.algebra import project, ratio
from fenland.arguments import check_number
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.requests import Grad, Program, Update


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

    @property
    def keeps(self) -> tuple[str, ...]:
        return ("v",)

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if s.due(g):
            h = yield Grad(at=s.climb(g), keep=g)
            s.put("v", h - project(h, g))
            yield Update(h)
            return
        v = s.get("v")
        yield Update(g if v is None else g + v * (self.alpha * ratio(g.norm, v.norm)))
