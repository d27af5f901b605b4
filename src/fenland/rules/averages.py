"""Ascent vectors with a memory: averages of gradients, the base's momentum, the gradient of the step before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from fenland.algebra import Vector
from fenland.arguments import check_among, check_between, check_number
from fenland.rules.context import At
from fenland.rules.source import Source, State


@dataclass(frozen=True)
class ExponentialAverage(Source):
    r"""a = m, m <- (1 - theta) * m + theta * g, m_0 = g: theta weighs the NEW gradient.

    Less noise in the ascent. Source: Li and Giannakis 2023, arXiv 2309.15639 (VaSSO). Keeps m.

    Attributes:
        theta: weight of the new gradient. 0.9: the authors' default.
    """

    keeps: ClassVar[tuple[str, ...]] = ("mean",)
    theta: float = 0.9

    def __post_init__(self) -> None:
        check_between("theta", self.theta, 0.0, 1.0)

    def start(self, g: Vector) -> State:
        return {"mean": [x.clone() for x in g]}

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        state["mean"] = [torch.lerp(m, x.to(m.dtype), self.theta) for m, x in zip(state["mean"], g, strict=True)]
        return state["mean"]


@dataclass(frozen=True)
class Friendly(Source):
    r"""a = g - sigma * m, m <- decay * m + (1 - decay) * g: decay weighs the OLD value. First step: a = g, m = g.

    Only the noise of the batch is climbed along. Source: Li et al. 2024, arXiv 2403.12350 (F-SAM). Keeps m.
    The authors' code subtracts the average before it has seen g (`average="old"`, default); the paper writes it with g
    in it (`"new"`). With sigma = 1 both give the same e: g - m_t = decay * (g - m_{t-1}).

    Attributes:
        sigma: share of the average that is taken away. 1.0: the authors' default.
        decay: lambda of the paper. 0.9: their class default (0.95 on their command line, 0.6 in their
            CIFAR-100 script).
        average: which average is subtracted.
    """

    keeps: ClassVar[tuple[str, ...]] = ("mean",)
    sigma: float = 1.0
    decay: float = 0.9
    average: Literal["old", "new"] = "old"

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma)
        check_between("decay", self.decay, 0.0, 1.0)
        check_among("average", self.average, ("old", "new"))

    def start(self, g: Vector) -> State:
        return {"mean": [x.clone() for x in g]}

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        old = state["mean"]
        new = [torch.lerp(x.to(m.dtype), m, self.decay) for m, x in zip(old, g, strict=True)]
        fresh = at.fresh if at.fresh is not None else [at.step == 0] * len(g)
        state["mean"] = new
        means = old if self.average == "old" else new
        return [x if first else x - self.sigma * m for x, m, first in zip(g, means, fresh, strict=True)]


@dataclass(frozen=True)
class Previous(Source):
    r"""a = g_{t-1}, the gradient of the step before; on the first step a = g.

    The ascent does not wait for this step's gradient, so that both passes could run at once (AsyncSAM, arXiv
    2503.11147; here they run one after the other). Keeps g.
    """

    keeps: ClassVar[tuple[str, ...]] = ("previous",)

    def start(self, g: Vector) -> State:
        return {"previous": [x.clone() for x in g]}

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        before = [x.clone() for x in state["previous"]]  # w + e may be written into it
        state["previous"] = [x.clone() for x in g]
        return before


@dataclass(frozen=True)
class Centralized(Source):
    r"""a = g - its mean over all dimensions but the first (GCSAM, arXiv 2501.11584, from third-party formulas)."""

    needs_whole: ClassVar[bool] = True

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        dims = [tuple(range(at.V.batch_dims + 1, x.dim())) for x in g]
        return [x - x.mean(d, keepdim=True) if d else x for x, d in zip(g, dims, strict=True)]


@dataclass(frozen=True)
class BaseMomentum(Source):
    r"""a = -v, v being the base's own momentum (SGD) or first moment (Adam): one gradient evaluation a step, at w + e.

    The sign is the authors': e points along the coming descent step, a look-ahead of fixed length; with
    rho_t = lr * mu * ||v_t|| it is Nesterov's momentum. No ascent on the first step, where the base has no v.
    Source: Becker, Altrock, Risse 2024, arXiv 2401.12033 (MSAM). Weights are clean between steps, while the authors'
    code stores w + e and adds the base's weight decay there.
    """

    needs_gradient: ClassVar[bool] = False
    reads_base: ClassVar[tuple[str, ...]] = ("momentum_buffer", "exp_avg")

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        return at.V.scale(-1.0, state["base"])


@dataclass(frozen=True)
class Random(Source):
    r"""a ~ N(0, 1), the same on all ranks: one gradient evaluation a step, at a random point of the ball's surface.

    The control for "any perturbation would do": ours. It is not R-SAM (Liu et al. 2022). The draw follows seed and step
    alone and touches no generator of yours; it differs between kinds of devices. Refuses sharded parameters.

    Attributes:
        seed: of the draws.
    """

    needs_gradient: ClassVar[bool] = False
    needs_whole: ClassVar[bool] = True
    seed: int = 0

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        like = list(g) or [p.detach() for p in at.params or ()]
        devices = {x.device for x in like}
        # A stride over seeds and steps that 64-bit generators keep apart.
        generators = {d: torch.Generator(d).manual_seed(self.seed * 1_000_003 + at.step) for d in devices}
        return [torch.randn(x.shape, generator=generators[x.device], dtype=x.dtype, device=x.device) for x in like]
