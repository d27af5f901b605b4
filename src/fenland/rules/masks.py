"""Perturbing only a part: norm layers, the largest elements, outliers, random tensors. Each wraps another ball."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fenland.algebra import Lazy, Scalar, Vector
from fenland.arguments import check_among, check_between, check_instance, check_whole
from fenland.rules.choices import Ball
from fenland.rules.context import Context
from fenland.rules.methods.ascend import L2
from fenland.rules.parameters import ParameterNames

NORM_LAYERS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


_L2 = L2()


@dataclass(frozen=True)
class _Wrapping(Ball):
    """A ball around another; it keeps what it does not change."""

    inner: Ball = _L2

    def __post_init__(self) -> None:
        check_instance("inner", self.inner, Ball, "fenland.L2()")
        if self.inner.geometry is not None:
            raise ValueError(f"inner = {self.inner}: a mask would leave the tangent space; use a flat ball")

    def check(self, params: ParameterNames) -> None:
        self.inner.check(params)

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        return self.inner.norm(e, a, s)


@dataclass(frozen=True)
class OnlyLayers(_Wrapping):
    r"""e = rho * (steepest over the parameters of layers of the given types), zero elsewhere; the norm over those only.

    With the norm layers this is SAM-ON: Mueller, Vlaar, Rolnick, Hein 2023, arXiv 2306.04226. Layers are found by their
    type, not by their name ("bn" misses `downsample.1`). All weights are still updated with h.

    Attributes:
        inner: the ball that the chosen parameters share.
        layers: module types; a parameter counts by the module that owns it.
    """

    layers: tuple[type[nn.Module], ...] = NORM_LAYERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or not all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in self.layers):
            raise TypeError(
                f"layers = {self.layers!r}: must be a non-empty tuple of module types, such as (nn.LayerNorm,)"
            )

    def check(self, params: ParameterNames) -> None:
        super().check(params)
        params.require_names(f"ball = {self}")
        if not any(self._covers(params.owner(p), params.name(p)) for p in params.params):
            raise ValueError(f"ball = {self}: covers none of the parameters, so there would be no ascent")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        return self.inner.steepest(a.only([i for i, m in enumerate(s.modules(a)) if isinstance(m, self.layers)]), s)

    def _covers(self, module: nn.Module | None, name: str) -> bool:
        if module is None:
            raise ValueError(f"{self}: needs to know which layer owns {name!r}; pass model=")
        return isinstance(module, self.layers)


@dataclass(frozen=True)
class Sparse(_Wrapping):
    r"""e = rho * M * (steepest of the inner ball): a mask after the normaliser, so ||e|| < rho.

    M keeps the share 1 - sparsity of all elements with the largest scores. Source: Mi et al. 2022, arXiv 2210.05177
    (Sparse SAM, there also "SSAM"). The paper scores by the Fisher information over n single samples, renewed every few
    epochs: pass it as `scores`. The default scores by this step's mini-batch gradient, a^2: no extra pass, no state.

    Attributes:
        inner: the ball before the mask.
        sparsity: share of elements that stay where they are. 0.5: the authors' default.
        scores: called with the step and a; returns one tensor for each of a's parameters. None: |a|.
    """

    sparsity: float = 0.5
    scores: Callable[[Context, Lazy], Vector] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("sparsity", self.sparsity, 0.0, 1.0)

    def check(self, params: ParameterNames) -> None:
        super().check(params)
        params.require_whole(f"ball = {self}")
        params.require_real(f"ball = {self}")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        a = a.form()
        scores = [x.abs() for x in a.tensors] if self.scores is None else self.scores(s, a)
        ((scale, best),) = self.inner.steepest(a, s).terms
        least = _quantile(scores, self.sparsity, a.V.batch_dims)
        masked = best.like([torch.where(x >= _as(least, x), u, 0.0) for x, u in zip(scores, best.tensors, strict=True)])
        return Lazy([(scale, masked)], (masked * scale).norm)


@dataclass(frozen=True)
class ZScore(_Wrapping):
    r"""e = rho * (steepest along M * a): a mask before the normaliser keeps the outliers of each layer's gradient.

    z = (a_l - mean(a_l)) / std(a_l) for each tensor l; M keeps the share 1 - quantile of elements with the largest |z|.
    Source: arXiv 2505.02369 (ZSharp), which keeps 5 %; from third-party formulas. Whether the threshold is taken over
    all layers (default here) or in each was not verified.

    Attributes:
        inner: the ball after the mask.
        quantile: share of elements that is left out.
        scope: "all" for one threshold, "layer" for one in each tensor.
    """

    quantile: float = 0.95
    scope: Literal["all", "layer"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("quantile", self.quantile, 0.0, 1.0)
        check_among("scope", self.scope, ("all", "layer"))

    def check(self, params: ParameterNames) -> None:
        super().check(params)
        params.require_whole(f"ball = {self}")
        params.require_real(f"ball = {self}")

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        lead, whole = a.V.batch_dims, a.form()
        z = [_standard(x, lead).abs() for x in whole.tensors]
        if self.scope == "all":
            least = _quantile(z, self.quantile, lead)
            marks = [_as(least, x) for x in z]
        else:
            marks = [_as(_quantile([x], self.quantile, lead), x) if x.numel() else x for x in z]
        kept = [torch.where(x >= mark, y, 0.0) for x, mark, y in zip(z, marks, whole.tensors, strict=True)]
        return self.inner.steepest(whole.like(kept), s)


@dataclass(frozen=True)
class RandomTensors(_Wrapping):
    r"""e = (rho / beta) * (steepest over a random choice of tensors), each kept with probability beta.

    ESAM's stochastic weight perturbation. Source: Du et al. 2022, arXiv 2110.03141; as in the authors' code the choice
    is by tensor and the norm over the kept ones, so ||e|| = rho / beta. At least one tensor is kept. The choice follows
    seed and step alone, so all ranks agree.

    Attributes:
        inner: the ball that the kept tensors share.
        beta: probability of keeping a tensor. 0.6: the authors' for ResNet-18.
        seed: of the choice.
    """

    beta: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("beta", self.beta, 0.0, 1.0)
        if self.beta == 0:
            raise ValueError("beta = 0: no tensor would be perturbed; must lie in (0, 1]")
        check_whole("seed", self.seed, 0)

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        whole = a.form()
        draws = random.Random(f"{self.seed}/{s.count}")
        numbers = [draws.random() for _ in whole.tensors]
        keep = [x < self.beta or x == min(numbers) for x in numbers]
        part = whole.like([x if k else torch.zeros_like(x) for x, k in zip(whole.tensors, keep, strict=True)])
        best = self.inner.steepest(part, s)
        length = torch.ones_like(a.norm) if best.length is None else best.length
        return Lazy((best * (1 / self.beta)).terms, length * (1 / self.beta))


def _quantile(xs: Vector, share: float, lead: int) -> Tensor:
    """The value that the fraction `share` of all elements lies below, for each replica."""
    flat = torch.cat([x.reshape(*x.shape[:lead], -1) for x in xs], -1)
    below = min(int(share * flat.shape[-1]), flat.shape[-1] - 1)
    return flat.kthvalue(below + 1, dim=-1).values


def _as(mark: Tensor, x: Tensor) -> Tensor:
    """A threshold per replica, shaped to broadcast over x."""
    return mark.reshape((*mark.shape, *(1,) * (x.dim() - mark.dim())))


def _standard(x: Tensor, lead: int) -> Tensor:
    """(x - mean) / std over one tensor, for each replica; 0 where all elements are equal."""
    flat = x.reshape(*x.shape[:lead], -1)
    centred = flat - flat.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt()
    return (centred / torch.where(spread > 0, spread, 1.0)).reshape(x.shape)
