"""Methods that differ in the vector that is climbed along, or in the samples that it comes from."""

from __future__ import annotations

from typing import Any, Literal

import torch

import fenland.rules as rules
from fenland.optimizer import SharpnessAware
from fenland.presets.table import preset
from fenland.rules import Radius


@preset(
    "a = g - sigma m, m = decay m + (1 - decay) g; e = rho a/|a|; d = h",
    "Li et al. 2024, arXiv 2403.12350",
    "Friendly",
    kept=1,
    syncs=1,
    defaults="rho 0.05, sigma 1 and decay 0.9 are class defaults. For CIFAR-100 the authors take rho 0.2 and decay 0.6",
    traps="decay weighs the old value. The code subtracts m before it has seen g (average='old'), the paper "
    "afterwards. On the first step a = g",
)
def FriendlySAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    sigma: float = 1.0,
    decay: float = 0.9,
    average: Literal["old", "new"] = "old",
    **options: Any,
) -> SharpnessAware:
    """Friendly SAM (F-SAM): climbs along the noise of the batch."""
    return SharpnessAware(base, rho, source=rules.Friendly(sigma, decay, average), **options)


@preset(
    "m = (1 - theta) m + theta g; e = rho m/|m|; d = h",
    "Li and Giannakis 2023, arXiv 2309.15639",
    "ExponentialAverage",
    kept=1,
    syncs=1,
    defaults="rho 0.1 (CIFAR-10; 0.2 for CIFAR-100) and theta 0.9 are the authors'",
    traps="theta weighs the new value, the opposite of FriendlySAM's decay",
)
def VaSSO(base: torch.optim.Optimizer, rho: Radius = 0.1, theta: float = 0.9, **options: Any) -> SharpnessAware:
    """Variance-suppressed SAM: climbs along an average of gradients."""
    return SharpnessAware(base, rho, source=rules.ExponentialAverage(theta), **options)


@preset(
    "e = -rho v/|v|, v the base's momentum; d = h",
    "Becker, Altrock, Risse 2024, arXiv 2401.12033",
    "BaseMomentum",
    closure_calls=1,
    defaults="rho 0.3 is the class default; all runs of the README have 3",
    traps="The minus sign means: along the coming step. The base needs momentum (SGD) or a first moment (Adam); "
    "without them it stays the plain base. The first step is the base's. Weight decay acts at w; in the "
    "authors' code it acts at w + e. Buffers such as BatchNorm's see w + e only",
)
def MSAM(base: torch.optim.Optimizer, rho: Radius = 0.3, **options: Any) -> SharpnessAware:
    """Momentum-SAM: one gradient evaluation a step, ahead along the base's momentum."""
    return SharpnessAware(base, rho, method=rules.BaseMomentum(), **options)


@preset("a = g - mean(g) by output; e = rho a/|a|; d = h", "GCSAM 2025, arXiv 2501.11584, third-party", "Centralized")
def GCSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """SAM along the centralised gradient."""
    return SharpnessAware(base, rho, source=rules.Centralized(), **options)


@preset(
    "a ~ N(0, 1); e = rho a/|a|; d = h",
    "ours, a control",
    "AtRandomPoint",
    closure_calls=1,
    defaults="rho 0.05 is SAM's",
    traps="This is not R-SAM (Liu et al. 2022). Buffers such as BatchNorm's see w + e only",
)
def RandomSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, seed: int = 0, **options: Any) -> SharpnessAware:
    """A random perturbation of SAM's length: what the ascent direction is worth. Source: ours."""
    return SharpnessAware(base, rho, method=rules.AtRandomPoint(seed), **options)


@preset(
    "e_t = rho g_{t-1}/|g_{t-1}|; d = h",
    "AsyncSAM 2025, arXiv 2503.11147",
    "Previous",
    kept=1,
    syncs=1,
    defaults="rho 0.05 is SAM's",
    traps="Both passes could run at once. Here they run one after the other, so nothing is saved",
)
def LaggedSAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    """SAM along the gradient of the step before."""
    return SharpnessAware(base, rho, source=rules.Previous(), **options)


@preset(
    "e_{k+1} = e_k + (rho/n) g_k/|g_k|, k = 0 .. n-1; d = h",
    "Foret et al. 2021, arXiv 2010.01412, appendix; Kim et al. 2023, arXiv 2302.10181",
    "InnerSteps",
    closure_calls=3,
    cost="n + 1",
    defaults="n 2 is the smallest number of steps that differs from SAM. rho 0.05 is SAM's",
    traps="Three conventions exist: n steps of rho/n (the default), a projection of the sum, and n full steps. Only "
    "the closure form works",
)
def NStepSAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    n: int = 2,
    convention: Literal["split", "project", "full"] = "split",
    step: float = 1.0,
    **options: Any,
) -> SharpnessAware:
    """SAM with an ascent of n steps."""
    return SharpnessAware(base, rho, method=rules.InnerSteps(n, convention, step), **options)


@preset(
    "e = (rho/beta) g_r/|g_r| on random tensors r; d = h on the samples whose loss rose most",
    "Du et al. 2022, arXiv 2110.03141",
    "RandomTensors",
    "LossIncrease",
    cost="2, the second backward on a part",
    defaults="rho 0.05, beta 0.6 and keep 0.5 are the authors' for ResNet-18",
    traps="|e| = rho/beta. All tensors get gradients in pass 1, so the authors' saving there is not made",
    per_sample=True,
)
def ESAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, beta: float = 0.6, keep: float = 0.5, seed: int = 0, **options: Any
) -> SharpnessAware:
    """Efficient SAM: random tensors in the ascent, the sharpest samples in the descent."""
    return SharpnessAware(
        base, rho, ball=rules.RandomTensors(beta=beta, seed=seed), method=rules.LossIncrease(keep), **options
    )


@preset(
    "g and h on the samples with the largest losses; e = rho g/|g|; d = h",
    "Ni et al. 2022, arXiv 2210.12864",
    "HardSamples",
    cost="2 on a part of the batch, and one forward",
    defaults="Half of the batch for both passes is from memory. rho 0.05 is SAM's",
    traps="If the closure takes the indices that pass 2 needs, it can leave the other samples out",
    per_sample=True,
)
def KSAM(
    base: torch.optim.Optimizer, rho: Radius = 0.05, ascent: float = 0.5, descent: float = 0.5, **options: Any
) -> SharpnessAware:
    """K-SAM: both gradients on the hardest samples only."""
    return SharpnessAware(base, rho, method=rules.HardSamples(ascent, descent), **options)
