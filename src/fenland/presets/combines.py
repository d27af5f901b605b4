"""Methods that differ in what the base gets from the two gradients."""

from __future__ import annotations

from typing import Any, Literal

import torch

import fenland.rules as rules
from fenland.optimizer import SharpnessAware
from fenland.presets.table import preset
from fenland.rules import Radius


@preset(
    "e = rho g/|g|; d = h - alpha (g - <g,h> h/|h|^2)",
    "Zhuang et al. 2022, arXiv 2203.08065",
    "SurrogateGap",
    in_step=1,
    defaults="alpha 0.6 is the official one for ViT-B/32. There rho follows the learning rate from 0.6 to 0.1: "
    "TiedToLearningRate",
    traps="A rho that is tied to the learning rate must see its final value. alpha = 0 is SAM",
)
def GSAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, alpha: float = 0.6, minimize_fp: bool = True, **options: Any
) -> SharpnessAware:
    """Surrogate-gap SAM: SAM without what widens the gap between perturbed and clean loss."""
    return SharpnessAware(base, rho, combine=rules.SurrogateGap(alpha, minimize_fp), **options)


@preset(
    "d = g, then w -= lr k (h - g), k = gamma/(1 - gamma); coupled: d = g + k (h - g)",
    "Yue et al. 2023, arXiv 2305.15817",
    "WeightedDecoupled",
    in_step=1,
    syncs=1,
    defaults="rho 0.05 and gamma 0.9 are the authors', who find 0.8 to 0.95 useful",
    traps="The decoupled term sees no momentum and no preconditioner. gamma = 0.5, coupled, is SAM. m-SAM is not "
    "possible",
)
def WSAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, gamma: float = 0.9, decoupled: bool = True, **options: Any
) -> SharpnessAware:
    """Weighted SAM: sharpness as a weighted term, decoupled from the base."""
    if decoupled:
        return SharpnessAware(base, rho, method=rules.WeightedDecoupled(gamma), **options)
    return SharpnessAware(base, rho, combine=rules.Weighted(gamma), **options)


@preset(
    "e = rho g/|g|; d = (1 - alpha) g + alpha h",
    "Zhao, Zhang, Hu 2022, arXiv 2202.03599",
    "Penalty",
    in_step=1,
    defaults="rho 0.1 and alpha 0.8 are from the authors' recipes",
    traps="The authors' code mixes g/|g| instead of g: unit_gradient=True",
)
def GNP(
    base: torch.optim.Optimizer, rho: Radius = 0.1, alpha: float = 0.8, unit_gradient: bool = False, **options: Any
) -> SharpnessAware:
    """Gradient-norm penalty by two gradients."""
    return SharpnessAware(base, rho, combine=rules.Penalty(alpha, unit_gradient), **options)


@preset(
    "d = |h| slerp(g/|g|, h/|h|; alpha)",
    "Chen and Zhou 2026, arXiv 2603.10048",
    "Spherical",
    in_step=1,
    defaults="rho 0.15 and rho_max 0.3 are from the README for CIFAR-100. alpha 0.5, the middle of the arc, is ours",
    traps="alpha is fixed unless you give a grid. XSAM(base, grid=(0, .5, 1, 1.5, 2)) searches it every 100 steps, as"
    " the authors do from time to time, at one more closure call for each value",
)
def XSAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.15,
    alpha: float = 0.5,
    grid: tuple[float, ...] = (),
    rho_max: float = 0.3,
    every: int = 100,
    **options: Any,
) -> SharpnessAware:
    """XSAM: descends along the arc from g to h."""
    for name, value in (("rho_max", rho_max), ("every", every)):
        if not grid and value != getattr(rules.SphericalSearch, name):
            raise ValueError(f"{name} = {value!r}: belongs to the search for alpha; give a grid, such as (0, 0.5, 1)")
    if grid:
        return SharpnessAware(base, rho, method=rules.SphericalSearch(tuple(grid), rho_max, every, alpha), **options)
    return SharpnessAware(base, rho, combine=rules.Spherical(alpha), **options)


@preset(
    "every k steps d = h, v = h - <h,g> g/|g|^2; else d = g + alpha |g| v/|v|",
    "Liu, Mai, Chen, Hsieh, You 2022, arXiv 2203.02714",
    "Reuse",
    "EveryK",
    in_step=1,
    cost="1 + 1/k",
    kept=1,
    syncs=1,
    defaults="k 5 and alpha 0.7 are those of ports. rho 0.05 is SAM's",
    traps="v is up to k - 1 steps old. k = 1 is SAM. The official repository holds no code",
    always=False,
)
def LookSAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, k: int = 5, alpha: float = 0.7, **options: Any
) -> SharpnessAware:
    """LookSAM: reuses the sharpness direction between ascents."""
    return SharpnessAware(base, rho, method=rules.Reuse(alpha), when=rules.EveryK(k), **options)


@preset(
    "d = |h| g/|g| (or any cell of direction against length)",
    "Andriushchenko and Flammarion 2022, arXiv 2206.06232, code",
    "Control",
    in_step=1,
    defaults="direction g and length h are the control of the authors' code. rho 0.05 is SAM's",
    traps="This is a control experiment, not a method. (h, g) is SSAM and (h, h) is SAM",
)
def ControlSAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    direction: Literal["g", "h"] = "g",
    length: Literal["g", "h"] = "h",
    **options: Any,
) -> SharpnessAware:
    """SAM's step length along the clean gradient: what SAM's direction is worth."""
    return SharpnessAware(base, rho, combine=rules.Control(direction, length), **options)
