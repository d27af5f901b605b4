"""Combines of two gradients: d = alpha * g + beta * h with scalars alpha and beta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from fenland.algebra import Lazy, Leaf, inverse, project, ratio
from fenland.arguments import check_among, check_instance, check_number
from fenland.rules.choices import Combine


@dataclass(frozen=True)
class Penalty(Combine):
    r"""d = (1 - alpha) * g + alpha * h: the gradient of L + lambda * ||grad L|| with alpha = lambda / rho.

    alpha = 1 is SAM. Source: Zhao, Zhang, Hu 2022, arXiv 2202.03599 (GNP). The authors' code mixes the unit vector
    instead, d = (1 - alpha) * g / ||g|| + alpha * h (its default): unit_gradient=True.

    Attributes:
        alpha: share of h. 0.8: the authors' recipes (with rho = 0.1).
        unit_gradient: the code's reading.
    """

    alpha: float = 0.8
    unit_gradient: bool = False

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_instance("unit_gradient", self.unit_gradient, bool, "False")

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        return g * ((1.0 - self.alpha) * (inverse(g.norm) if self.unit_gradient else 1.0)) + h * self.alpha


@dataclass(frozen=True)
class SurrogateGap(Combine):
    r"""d = h - alpha * g_perp, g_perp = g - <g, h> h / ||h||^2: SAM, minus what would widen the gap L(w + e) - L(w).

    alpha = 0 is SAM. Source: Zhuang et al. 2022, arXiv 2203.08065 (GSAM). minimize_fp=False is an option of the
    authors' JAX code, d = g + alpha * (h - <h, g> g / ||g||^2), with fewer loss spikes.

    Attributes:
        alpha: weight of the gap. 0.6: the official ViT-B/32 configuration.
        minimize_fp: whether the perturbed loss leads (the paper), or the clean one.
    """

    alpha: float = 0.6
    minimize_fp: bool = True

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_instance("minimize_fp", self.minimize_fp, bool, "True")

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        if self.minimize_fp:
            return h - (g - project(g, h)) * self.alpha
        return g + (h - project(h, g)) * self.alpha


@dataclass(frozen=True)
class Weighted(Combine):
    r"""d = g + kappa * (h - g), kappa = gamma / (1 - gamma): sharpness as a weighted term, through the base.

    gamma = 0.5 is SAM, gamma = 0 the base. Source: Yue et al. 2023, arXiv 2305.15817 (WSAM, the coupled form; the
    paper's own is `WeightedDecoupled`).

    Attributes:
        gamma: weight of sharpness, in [0, 1). 0.9: the authors' default; 0.8 to 0.95 is useful.
    """

    gamma: float = 0.9

    def __post_init__(self) -> None:
        check_weight(self.gamma)

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        kappa = self.gamma / (1 - self.gamma)
        return g * (1.0 - kappa) + h * kappa


def check_weight(gamma: object) -> None:
    """Raise unless gamma is a number in [0, 1)."""
    check_number("gamma", gamma, low=0.0)
    if gamma >= 1:  # type: ignore[operator]
        raise ValueError(f"gamma = {gamma!r}: must lie in [0, 1); gamma / (1 - gamma) weighs the sharpness")


@dataclass(frozen=True)
class Spherical(Combine):
    r"""d = ||h|| * slerp(g / ||g||, h / ||h||; alpha), i.e. with the angle theta between them
    d = (||h|| / ||g||) * sin((1 - alpha) theta) / sin(theta) * g + sin(alpha theta) / sin(theta) * h.

    alpha = 1 is SAM, alpha = 0 "SGD+", larger alpha turns beyond h. Where sin(theta) < 1e-8 it is the straight mean,
    slerp's limit. Source: Chen and Zhou 2026, arXiv 2603.10048 (XSAM); there alpha is searched: `SphericalSearch`.

    Attributes:
        alpha: position on the arc from g to h. 0.5, its middle: ours.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        return arc(g, h, self.alpha)


def arc(g: Leaf, h: Leaf, alpha: float) -> Lazy:
    """||h|| * slerp(g / ||g||, h / ||h||; alpha), of length ||h||."""
    cosine = (g.dot(h) * inverse(h.norm) * inverse(h.norm) * ratio(h.norm, g.norm)).clamp(-1.0, 1.0)
    theta = torch.arccos(cosine)
    sine = torch.sin(theta)
    curved = sine >= _PARALLEL
    safe = torch.where(curved, sine, 1.0)
    on_g = torch.where(curved, torch.sin((1 - alpha) * theta) / safe, 1 - alpha)
    on_h = torch.where(curved, torch.sin(alpha * theta) / safe, alpha)
    turned: Lazy = g * (on_g * h.norm * inverse(g.norm)) + h * on_h
    return turned


_PARALLEL = 1e-8  # sin(theta) below which the authors' code too leaves the sphere


@dataclass(frozen=True)
class Control(Combine):
    r"""d = (direction of g or h) * (length of g or h): the four cells of direction against length.

    (g, g) is the base at two passes, (h, h) SAM, (h, g) Stable SAM, (g, h) the "step size only" control in the code of
    Andriushchenko and Flammarion 2022, arXiv 2206.06232. Where a vector has no direction, d is left as long as it is.
    """

    direction: Literal["g", "h"] = "g"
    length: Literal["g", "h"] = "h"

    def __post_init__(self) -> None:
        check_among("direction", self.direction, ("g", "h"))
        check_among("length", self.length, ("g", "h"))

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        of = {"g": g, "h": h}
        d = of[self.direction]
        return d if self.direction == self.length else d * ratio(of[self.length].norm, d.norm)
