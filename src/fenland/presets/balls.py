"""Methods that differ in the ball: which norm bounds the perturbation, and which weights it reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

import fenland.rules as rules
from fenland.algebra import Lazy, Scalar, Vector
from fenland.optimizer import SharpnessAware
from fenland.presets.table import PRESETS, preset
from fenland.rules import Radius

_FORET = "Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412"
_RHO = "rho .05 is Foret's for CIFAR-10"


@preset("e = rho g/|g|; d = h", _FORET, defaults=_RHO, traps="a constant rho never reaches the optimum")
def SAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """Sharpness-aware minimization."""
    return SharpnessAware(base, rho, **options)


@preset(
    "e = rho g; d = h",
    "Andriushchenko and Flammarion 2022, arXiv 2206.06232",
    "Unnormalized",
    defaults="rho .05: that of the SSAM code",
    traps="rho has the unit w per gradient, unlike SAM's; diverges where the gradient grows; the SSAM paper says SAM",
)
def USAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """Unnormalised SAM."""
    return SharpnessAware(base, rho, ball=rules.Unnormalized(), **options)


@preset(
    "e = rho g min(1, 1/|g|); d = h",
    "Andriushchenko and Flammarion 2022, arXiv 2206.06232, code",
    "Clipped",
    defaults=_RHO,
    traps="not USAM, although the code's flag says so: SAM wherever |g| >= 1",
)
def ClippedUSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """Unnormalised SAM, projected onto the rho-ball."""
    return SharpnessAware(base, rho, ball=rules.Clipped(), **options)


@preset(
    "e = rho g/|g|; d = h |g|/|h|",
    "Tan, Zhang, Liu, Wang, Hao 2025 (JMLR), arXiv 2401.07250",
    "Renormalize",
    defaults="rho .05: the authors'; normalize=True builds on Foret's ascent, False (e = rho g) is the paper's",
    traps="radii of the two ascents are not comparable; with Adam-like bases a constant gamma cancels",
)
def SSAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    *,
    normalize: bool = True,
    cap: float | None = None,
    gamma_norm: Literal["l2", "metric"] = "l2",
    ball: rules.Ball | None = None,
    **options: Any,
) -> SharpnessAware:
    """Stable SAM: the descent gradient is brought back to the length of the clean one."""
    ball = ball or (rules.L2() if normalize else rules.Unnormalized())
    return SharpnessAware(base, rho, ball=ball, method=rules.Renormalize(cap=cap, gamma_norm=gamma_norm), **options)


def _stable_unnormalized(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    return SSAM(base, rho, normalize=False, **options)


PRESETS["SSAM-U"] = replace(
    PRESETS["SSAM"],
    name="SSAM-U",
    build=_stable_unnormalized,
    title="Stable SAM as its paper has it: SSAM(normalize=False).",
    equation="e = rho g; d = h |g|/|h|",
    choices=("Unnormalized", "Renormalize"),
)


@preset(
    "e = rho sign(g) |g|^(q-1) / (sum |g|^q)^(1/p), 1/p + 1/q = 1; d = h",
    _FORET + ", eq. (2)",
    "Lp",
    defaults="p = 2 is SAM: choose p; rho .05 is SAM's",
    traps="rho is a p-norm: p = inf moves every weight by rho, so rho .05 is far too large; scale by 1/sqrt(d)",
)
def LpSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, p: float = 2.0, **options: Any) -> SharpnessAware:
    """SAM with a p-norm ball, by its dual norm; p from 1 to inf."""
    return SharpnessAware(base, rho, ball=rules.Lp(p), **options)


@preset(
    "e = rho g/|g|_inf; d = h",
    _FORET + "; this reading of the infinity norm is that of code derived from davda54/sam",
    "InfNorm",
    defaults=_RHO,
    traps="not the maximiser over the box (LpSAM(p=inf) is); |e| is some 10 to 200 times rho",
)
def InfNormSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """SAM's direction, scaled by the largest gradient element."""
    return SharpnessAware(base, rho, ball=rules.InfNorm(), **options)


@preset(
    "e = rho T^2 g/|T g|, T = |w| + eta; d = h",
    "Kwon, Kim, Park, Choi 2021, arXiv 2102.11600",
    "Adaptive",
    defaults="rho .5: the authors' for CIFAR-10; eta .01: their class default (their command line has 0)",
    traps="rho is about ten times SAM's; the authors' code leaves biases out (include_bias=False), davda54's takes "
    "them in with eta=0, and then tensors that start at zero never move",
)
def ASAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.5,
    eta: float = 0.01,
    granularity: Literal["element", "filter", "layer"] = "element",
    include_bias: bool = True,
    **options: Any,
) -> SharpnessAware:
    """Adaptive SAM: the ball scales with the weights."""
    return SharpnessAware(base, rho, ball=rules.Adaptive(eta, granularity, include_bias), **options)


@preset(
    "e = rho F^-1 g / sqrt(g F^-1 g), F = 1 + eta g^2; d = h",
    "Kim, Li, Hu, Hospedales 2022, arXiv 2206.04920",
    "Fisher",
    defaults="rho .1, eta 1: a third party's",
    traps="with batch-mean gradients F is the identity and this is SAM, unless eta >> 1",
)
def FisherSAM(base: torch.optim.Optimizer, rho: Radius = 0.1, eta: float = 1.0, **options: Any) -> SharpnessAware:
    """SAM in the metric of the diagonal Fisher information."""
    return SharpnessAware(base, rho, ball=rules.Fisher(eta), **options)


@preset(
    "e = rho r/|r|, r = grad_R L(w), w_adv = Retr_w(e); d = Transport(grad_R L(w_adv))",
    "Truong et al. 2023, arXiv 2309.17215; Yun and Yang 2023",
    "Riemannian",
    defaults="rho .05: SAM's; none verified",
    traps="needs geoopt and a Riemannian base; only manifolds with the metric of the space around them",
)
def RiemannianSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """SAM on manifolds (geoopt parameters); plain parameters stay flat."""
    return SharpnessAware(base, rho, ball=rules.Riemannian(), **options)


@preset(
    "e_l = rho U V^T for each matrix g_l = U S V^T; d = h",
    "ours",
    "Spectral",
    defaults="rho .01: ours, not tuned",
    traps="rho bounds each layer by itself; one SVD a matrix, which waits for the device",
)
def SpectralSAM(base: torch.optim.Optimizer, rho: Radius = 0.01, **options: Any) -> SharpnessAware:
    """SAM with the ball of the largest spectral norm over the weight matrices. Source: ours."""
    return SharpnessAware(base, rho, ball=rules.Spectral(), **options)


@preset(
    "e = rho g/|f'(w)|, the norm of the full-data gradient; d = h",
    "Compagnoni et al. 2023, arXiv 2301.08203",
    "FullNorm",
    cost="2, and those of full_norm",
    defaults=_RHO,
    traps="|e| >> rho where noise dominates; full_norm must not write to p.grad",
    needs=("full_norm",),
)
def DNSAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, *, full_norm: Callable[[], Scalar | float], **options: Any
) -> SharpnessAware:
    """SAM normalised by the full-data gradient, which `full_norm()` returns at w."""
    return SharpnessAware(base, rho, ball=rules.FullNorm(full_norm), **options)


@preset(
    "e = min(sigma/|g|, rho) g/|g|; d = h",
    "Wang, Liu, Xie, Gao 2026, arXiv 2605.10183",
    "LossBudget",
    defaults="sigma .1, rho .05 (the largest radius): class defaults; CIFAR-100: sigma .35, rho 999",
    traps="the radius goes as 1/|g|: only rho and a decaying sigma bound it near a minimum",
)
def LESAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, sigma: float | Callable[[int], float] = 0.1, **options: Any
) -> SharpnessAware:
    """SAM whose radius spends a fixed budget of loss."""
    return SharpnessAware(base, rho, ball=rules.LossBudget(sigma), **options)


@preset(
    "e = rho g_n/|g_n| on norm layers, 0 elsewhere; d = h",
    "Mueller, Vlaar, Rolnick, Hein 2023, arXiv 2306.04226",
    "OnlyLayers",
    defaults="rho .5: ours (the authors tune it per task, far above SAM's); layers: norm layers by type",
    traps="a large rho is needed; refused where the model has no such layer",
    needs=("model",),
)
def SAMON(
    base: torch.optim.Optimizer,
    rho: Radius = 0.5,
    *,
    layers: tuple[type[nn.Module], ...] = rules.NORM_LAYERS,
    inner: rules.Ball | None = None,
    **options: Any,
) -> SharpnessAware:
    """SAM-ON: only normalisation layers are perturbed, all weights are updated."""
    return SharpnessAware(base, rho, ball=rules.OnlyLayers(inner or rules.L2(), layers), **options)


@preset(
    "e = rho M g/|g|, M the largest scores; d = h",
    "Mi et al. 2022, arXiv 2210.05177 (there also SSAM)",
    "Sparse",
    defaults="rho .1, sparsity .5: the authors' repository",
    traps="|e| < rho; no time is saved; scores default to this batch's gradient, the paper's are Fisher information "
    "from single samples, renewed every few epochs",
)
def SparseSAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.1,
    sparsity: float = 0.5,
    scores: Callable[[rules.Context, Lazy], Vector] | None = None,
    **options: Any,
) -> SharpnessAware:
    """SAM that perturbs a part of the elements."""
    return SharpnessAware(base, rho, ball=rules.Sparse(sparsity=sparsity, scores=scores), **options)


@preset(
    "e = rho Mg/|Mg|, M the largest |z| of each layer's gradient; d = h",
    "ZSharp 2025, arXiv 2505.02369, from third-party formulas",
    "ZScore",
    defaults="quantile .95 keeps 5 % of the elements; rho .05 is SAM's",
    traps="whether the threshold is global or per layer was not verified: scope",
)
def ZSharp(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    quantile: float = 0.95,
    scope: Literal["all", "layer"] = "all",
    **options: Any,
) -> SharpnessAware:
    """SAM along the outliers of each layer's gradient."""
    return SharpnessAware(base, rho, ball=rules.ZScore(quantile=quantile, scope=scope), **options)
