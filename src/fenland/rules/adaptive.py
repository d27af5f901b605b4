"""Balls with a metric: the perturbation is e = rho * M a / sqrt(<a, M a>), with a diagonal M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fenland.algebra import Lazy, Scalar, Vector, inverse
from fenland.arguments import check_among, check_instance, check_number
from fenland.rules.choices import Ball
from fenland.rules.context import Context
from fenland.rules.parameters import ParameterNames

GRANULARITIES = ("element", "filter", "layer")
_CONVOLUTION = 3  # dimensions from which on a weight is a stack of filters


@dataclass(frozen=True)
class Adaptive(Ball):
    r"""e = rho * T^2 a / ||T a||_2, i.e. the steepest e with ||T^-1 e||_2 <= rho.

    element: T = |w| + eta. filter: T = ||w_f||_2 + eta for each filter of a convolution, elements elsewhere.
    layer: T = ||w_l||_2 + eta for each tensor. Source: Kwon, Kim, Park, Choi 2021, arXiv 2102.11600 (ASAM).
    rho has no unit (a share of the weights); it is about ten times SAM's.

    The authors' code takes T = 1 on every tensor whose name lacks "weight", so on biases (include_bias=False) and also
    on class tokens. eta = 0 with biases included is the reading of davda54/sam's `adaptive=True`; there, tensors that
    start at zero are never perturbed.

    Attributes:
        eta: keeps small weights moving (unit of w). 0.01: the authors' class default.
        granularity: what shares one T. "filter" and "layer" need whole tensors and refuse sharded parameters.
        include_bias: False takes T = 1 where the last part of a parameter's name contains "bias".
    """

    eta: float = 0.01
    granularity: Literal["element", "filter", "layer"] = "element"
    include_bias: bool = True

    def __post_init__(self) -> None:
        check_number("eta", self.eta, low=0.0)
        check_among("granularity", self.granularity, GRANULARITIES)
        check_instance("include_bias", self.include_bias, bool, "True")

    def check(self, params: ParameterNames) -> None:
        if not self.include_bias:
            params.require_names(f"ball = {self}")
        if self.granularity != "element":
            params.require_whole(f"ball = {self}")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        x, V = a.form(), a.V
        if self.granularity == "element" and self.include_bias:
            direction, length = V.metric_step(
                lambda _, w: w.abs().add_(self.eta), x.tensors, s.weights(a), spend=s.spend
            )
            return x.like(direction) * inverse(length)
        metric = self.metric(x, s)
        scaled = V.mul(metric, x.tensors)
        return x.like(V.mul(metric, scaled)) * inverse(V.norm(scaled))

    def metric(self, a: Lazy, s: Context) -> Vector:
        """T, one tensor a parameter, of shapes that broadcast over w."""
        w, lead = s.weights(a), a.V.batch_dims
        names: Sequence[str] = [""] * len(w) if self.include_bias else s.names(a)
        return [
            torch.ones_like(x) if "bias" in name.rpartition(".")[2] else self._of(x, lead)
            for x, name in zip(w, names, strict=True)
        ]

    def _of(self, x: Tensor, lead: int) -> Tensor:
        inside = tuple(range(lead, x.dim()))
        if self.granularity == "filter":
            inside = inside[1:] if len(inside) >= _CONVOLUTION else ()
        if self.granularity == "element" or not inside:
            return x.abs() + self.eta
        lengths: Tensor = torch.linalg.vector_norm(x, dim=inside, keepdim=True)
        return (lengths + self.eta).expand_as(x)

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        pairs = zip(e.tensors, self.metric(a, s), strict=True)
        return e.V.norm([torch.where(t > 0, x / t.clamp_min(torch.finfo(t.dtype).tiny), 0.0) for x, t in pairs])


@dataclass(frozen=True)
class Fisher(Ball):
    r"""e = rho * F^-1 a / sqrt(<a, F^-1 a>), diagonal F = 1 + eta * a^2 with the mini-batch gradient squared.

    Source: Kim, Li, Hu, Hospedales 2022, arXiv 2206.04920; no official code, the form of F is that of a third party.
    Trap: a batch-mean gradient of 1e-3 gives eta * a^2 = 1e-6, so F is the identity and this is SAM, unless eta is very
    large (1e4 and more) or the loss is a sum over the batch. The ball changes with the gradient: it is no fixed norm.

    Attributes:
        eta: weight of the Fisher information (unit: 1 / gradient^2). 1.0: third-party default.
    """

    is_norm: ClassVar[bool] = False
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, low=0.0)

    def check(self, params: ParameterNames) -> None:
        params.require_real(f"ball = {self}")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        x = a.form()
        direction, length = a.V.metric_step(
            lambda g: torch.addcmul(g.new_ones(()), g, g, value=self.eta).rsqrt_(), x.tensors, spend=s.spend
        )  # F^-1/2, F = 1 + eta * g^2
        return x.like(direction) * inverse(length)

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        V = e.V
        return V.norm(V.mul(V.map(lambda g: (1 + self.eta * g.square()).sqrt(), a.tensors), e.tensors))
