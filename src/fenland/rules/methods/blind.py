"""Ascents along a vector that is known before any gradient: one gradient evaluation a step, at w + e."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fenland.arguments import check_whole
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.parameters import ParameterNames
from fenland.rules.requests import Grad, Program, Update


@dataclass(frozen=True)
class _Blind(Method):
    """One evaluation, of h alone."""

    evaluations = 1
    clean_gradient = False
    reads_norms = False


@dataclass(frozen=True)
class BaseMomentum(_Blind):
    r"""e = -rho * v / ||v||, d = h, v being the base's own momentum (SGD) or first moment (Adam).

    The sign is the authors': e points along the coming descent step, a look-ahead of fixed length; with
    rho_t = lr * mu * ||v_t|| it is Nesterov's momentum. No ascent on the first step, where the base has no v.
    Source: Becker, Altrock, Risse 2024, arXiv 2401.12033 (MSAM). Weights are clean between steps, while the authors'
    code stores w + e and adds the base's weight decay there.
    """

    reads_base = ("momentum_buffer", "exp_avg")

    def step(self, s: Context) -> Program:
        v = s.base(*self.reads_base)
        climbs = v is not None and s.due()
        h = yield Grad(at=s.climb(-v) if climbs else None, final=True)  # type: ignore[operator]
        yield Update(h)


@dataclass(frozen=True)
class AtRandomPoint(_Blind):
    r"""e along a ~ N(0, 1), the same on all ranks; d = h: a random point of the ball's surface.

    The control for "any perturbation would do": ours. It is not R-SAM (Liu et al. 2022). The draw follows seed and step
    alone and touches no generator of yours; it differs between kinds of devices. Refuses sharded parameters.

    Attributes:
        seed: of the draws.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)

    def check(self, params: ParameterNames) -> None:
        params.require_whole(f"method = {self}")

    def step(self, s: Context) -> Program:
        at = None
        if s.due():
            like = s.parameters()
            # A stride over seeds and steps that 64-bit generators keep apart.
            draws = {
                d: torch.Generator(d).manual_seed(self.seed * 1_000_003 + s.count) for d in {x.device for x in like}
            }
            drawn = [torch.randn(x.shape, generator=draws[x.device], dtype=x.dtype, device=x.device) for x in like]
            at = s.climb(s.vector(drawn))
        yield Update((yield Grad(at=at, final=True)))
