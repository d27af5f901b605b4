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
_RHO = "rho 0.05 is Foret's for CIFAR-10"


@preset("e = rho g/|g|; d = h", _FORET, defaults=_RHO, traps="A constant rho keeps SAM from reaching the optimum")
def SAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """Sharpness-aware minimization."""
    return SharpnessAware(base, rho, **options)


@preset(
    "e = rho g; d = h",
    "Andriushchenko and Flammarion 2022, arXiv 2206.06232",
    "Unnormalized",
    defaults="rho 0.05 is that of the SSAM authors' code",
    traps="rho has the unit w per gradient, unlike SAM's. The method diverges where the gradient grows. The SSAM "
    "paper calls it SAM",
)
def USAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """Unnormalised SAM."""
    return SharpnessAware(base, rho, ball=rules.Unnormalized(), **options)


@preset(
    "e = rho g min(1, 1/|g|); d = h",
    "Andriushchenko and Flammarion 2022, arXiv 2206.06232, code",
    "Clipped",
    defaults=_RHO,
    traps="This is not USAM, although a flag of the authors' code says so: wherever |g| >= 1 it is SAM",
)
def ClippedUSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """Unnormalised SAM, projected onto the rho-ball."""
    return SharpnessAware(base, rho, ball=rules.Clipped(), **options)


@preset(
    "e = rho g/|g|; d = h |g|/|h|",
    "Tan, Zhang, Liu, Wang, Hao 2025 (JMLR), arXiv 2401.07250",
    "Renormalize",
    defaults="rho 0.05 is the authors'. normalize=True builds on SAM's ascent; False (e = rho g) is that of the paper",
    traps="The radii of the two ascents are not comparable. With Adam-like bases a constant gamma cancels",
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
    if ball is not None and not normalize:
        raise ValueError(f"normalize = False and ball = {ball!r}: each says what bounds e; give one of them")
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
    defaults="p = 2 is SAM, so choose another p. rho 0.05 is SAM's",
    traps="rho is a p-norm. With p = inf every weight moves by rho, so 0.05 is far too large: scale it by 1/sqrt(d)",
)
def LpSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, p: float = 2.0, **options: Any) -> SharpnessAware:
    """SAM with a p-norm ball, by its dual norm; p from 1 to inf."""
    return SharpnessAware(base, rho, ball=rules.Lp(p), **options)


@preset(
    "e = rho g/|g|_inf; d = h",
    _FORET + "; this reading of the infinity norm is that of code derived from davda54/sam",
    "InfNorm",
    defaults=_RHO,
    traps="This is not the maximiser over the box; LpSAM(p=inf) is. |e| is some 10 to 200 times rho",
)
def InfNormSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """SAM's direction, scaled by the largest gradient element."""
    return SharpnessAware(base, rho, ball=rules.InfNorm(), **options)


@preset(
    "e = rho T^2 g/|T g|, T = |w| + eta; d = h",
    "Kwon, Kim, Park, Choi 2021, arXiv 2102.11600",
    "Adaptive",
    defaults="rho 0.5 is the authors' for CIFAR-10. eta 0.01 is the default of their class (that of their command "
    "line is 0)",
    traps="rho is about ten times SAM's. The authors' code leaves biases out (include_bias=False). That of davda54 "
    "takes them in with eta=0, and then tensors that start at zero never move",
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
    defaults="rho 0.1 and eta 1 are those of a third party's code",
    traps="With batch-mean gradients F is almost the identity, and the method is SAM, unless eta is much larger than 1",
)
def FisherSAM(base: torch.optim.Optimizer, rho: Radius = 0.1, eta: float = 1.0, **options: Any) -> SharpnessAware:
    """SAM in the metric of the diagonal Fisher information."""
    return SharpnessAware(base, rho, ball=rules.Fisher(eta), **options)


@preset(
    "e = rho r/|r|, r = grad_R L(w), w_adv = Retr_w(e); d = Transport(grad_R L(w_adv))",
    "Truong et al. 2023, arXiv 2309.17215; Yun and Yang 2023",
    "Riemannian",
    defaults="rho 0.05 is SAM's; no value was verified",
    traps="It needs geoopt and a Riemannian base. Only manifolds with the metric of the space around them are "
    "supported",
)
def RiemannianSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """SAM on manifolds (geoopt parameters); plain parameters stay flat."""
    return SharpnessAware(base, rho, ball=rules.Riemannian(), **options)


@preset(
    "e_l = rho U V^T for each matrix g_l = U S V^T; d = h",
    "ours",
    "Spectral",
    defaults="rho 0.01 is ours and was not tuned",
    traps="rho bounds each layer by itself. Each matrix needs an SVD, which waits for the device",
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
    traps="|e| is much larger than rho where noise dominates. full_norm must not write to p.grad",
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
    defaults="sigma 0.1 and rho 0.05 (the largest radius) are class defaults. For CIFAR-100 the authors take sigma "
    "0.35 and rho 999",
    traps="The radius grows as 1/|g|. Near a minimum only rho and a decaying sigma bound it",
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
    defaults="rho 0.5 is ours; the authors tune it for each task, far above SAM's. Norm layers are known by their type",
    traps="It needs a large rho. A model without such layers is refused",
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
    defaults="rho 0.1 and sparsity 0.5 are those of the authors' repository",
    traps="|e| < rho. It saves no time here. Scores default to the gradient of this batch; in the paper they are "
    "Fisher information from single samples, renewed every few epochs",
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
    defaults="quantile 0.95 keeps 5 % of the elements. rho 0.05 is SAM's",
    traps="Nobody has verified whether the authors' threshold is global or per layer: see scope",
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
