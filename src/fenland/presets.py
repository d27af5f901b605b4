"""From paper names to the five choices: one table, from which the functions and the documentation are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fenland.optimizer import SharpnessAware
from fenland.rules import L2, Radius, Renormalize, Unnormalized


def SAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    r"""Sharpness-aware minimization: e = rho * g / ||g||, d = grad L(w + e).

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412. rho = 0.05 is the paper's for CIFAR-10.
    """
    return SharpnessAware(base, rho, **options)


def USAM(base: torch.optim.Optimizer, rho: Radius = 0.05, **options: Any) -> SharpnessAware:
    r"""Unnormalised SAM: e = rho * g, d = grad L(w + e). rho has the unit w per gradient, unlike SAM's.

    Source: Andriushchenko and Flammarion 2022, arXiv 2206.06232. The SSAM paper calls this one SAM.
    """
    return SharpnessAware(base, rho, ball=Unnormalized(), **options)


def SSAM(
    base: torch.optim.Optimizer,
    rho: Radius = 0.05,
    *,
    normalize: bool = True,
    cap: float | None = None,
    **options: Any,
) -> SharpnessAware:
    r"""Stable SAM: d = gamma * h with gamma = ||g|| / ||h||, so that the descent gradient is as long as the ascent's.

    Source: Tan, Zhang, Liu, Wang, Hao, JMLR 2025, arXiv 2401.07250.

    Args:
        base: the optimizer to wrap.
        rho: radius.
        normalize: True builds on Foret's ascent e = rho * g / ||g||; False is the paper's own, e = rho * g.
        cap: upper bound on gamma; None for the published rule.
        options: of `SharpnessAware`.
    """
    return SharpnessAware(
        base, rho, ball=L2() if normalize else Unnormalized(), combine=Renormalize(cap=cap), **options
    )


@dataclass(frozen=True)
class Preset:
    """A row of the table of methods.

    Attributes:
        name: the public name.
        build: base and options -> optimizer.
        equation: perturbation and descent gradient.
        source: authors, year, arXiv id.
        closure_calls: gradient evaluations a step.
    """

    name: str
    build: Callable[..., SharpnessAware]
    equation: str
    source: str
    closure_calls: float = 2


_FORET = "Foret et al. 2021, arXiv 2010.01412"
_TAN = "Tan et al. 2025, arXiv 2401.07250"

PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset("SAM", SAM, "e = rho g/|g|; d = h", _FORET),
        Preset("USAM", USAM, "e = rho g; d = h", "Andriushchenko and Flammarion 2022, arXiv 2206.06232"),
        Preset("SSAM", SSAM, "e = rho g/|g|; d = h |g|/|h|", _TAN),
        Preset("SSAM-U", lambda base, **o: SSAM(base, normalize=False, **o), "e = rho g; d = h |g|/|h|", _TAN),
    )
}
