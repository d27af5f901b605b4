"""WSAM as its paper has it: the sharpness term acts on the weights beside the base."""

from __future__ import annotations

from dataclasses import dataclass

from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.requests import Grad, Program, Update
from fenland.rules.two_gradient import check_weight


@dataclass(frozen=True)
class WeightedDecoupled(Method):
    r"""The base gets g, and after its step w <- w - lr * kappa * (h - g), kappa = gamma / (1 - gamma).

    So the term is free of momentum and preconditioner: with SGD's momentum mu it is 1 - mu times weaker than it looks.
    `max_norm`, and a trainer's clipping, bound the base's g, not this term.
    gamma = 0.5 is SAM without momentum, gamma = 0 the base. Source: Yue et al. 2023, arXiv 2305.15817 (WSAM).

    Attributes:
        gamma: weight of sharpness, in [0, 1). 0.9: the authors' default; 0.8 to 0.95 is useful.
    """

    gamma: float = 0.9

    def __post_init__(self) -> None:
        check_weight(self.gamma)

    corrects = True

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if not s.due(g):
            yield Update(g)
            return
        h = yield Grad(at=s.climb(g), keep=g)
        yield Update(g, after=(g - h) * (self.gamma / (1 - self.gamma)))
