"""Ascent vectors other than g: averages of gradients, the gradient of the step before, the centralised gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fenland.algebra import Lazy, Leaf
from fenland.arguments import check_among, check_between, check_number
from fenland.rules.choices import Source
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames


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

    def vector(self, g: Leaf, s: Context) -> Lazy:
        mean: Lazy = s.put("mean", s.get("mean", g) * (1 - self.theta) + g * self.theta)
        return mean


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
        if self.average == "new" and self.decay == 0 and self.sigma == 1:
            raise ValueError('decay = 0: with average="new" and sigma=1, a = g - g = 0 and no step would ascend')

    def vector(self, g: Leaf, s: Context) -> Lazy:
        fresh, old = s.fresh("mean", g), s.get("mean", g)
        new = s.put("mean", old * self.decay + g * (1 - self.decay))
        mean: Lazy = old if self.average == "old" else new
        if not any(fresh):
            return g - mean * self.sigma
        parts = zip(g.tensors, mean.form().tensors, fresh, strict=True)
        return g.like([x.clone() if first else x - self.sigma * m for x, m, first in parts])


@dataclass(frozen=True)
class Previous(Source):
    r"""a = g_{t-1}, the gradient of the step before (of the last that ascended, under a `when`); on the first a = g.

    The ascent does not wait for this step's gradient, so that both passes could run at once (AsyncSAM, arXiv
    2503.11147; here they run one after the other). Keeps g.
    """

    keeps: ClassVar[tuple[str, ...]] = ("previous",)

    def vector(self, g: Leaf, s: Context) -> Lazy:
        before: Lazy = s.get("previous", g)
        s.put("previous", g)
        return before


@dataclass(frozen=True)
class Centralized(Source):
    r"""a = g - its mean over all dimensions but the first (GCSAM, arXiv 2501.11584, from third-party formulas)."""

    def check(self, params: ParameterNames) -> None:
        params.require_whole(f"source = {self}")

    def vector(self, g: Leaf, s: Context) -> Lazy:
        dims = [tuple(range(g.V.batch_dims + 1, x.dim())) for x in g.tensors]
        return g.like([x - x.mean(d, keepdim=True) if d else x.clone() for x, d in zip(g.tensors, dims, strict=True)])
