"""Combines of two gradients, each a pair (alpha, beta) of d = alpha * g + beta * h."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from fenland.algebra import Scalar
from fenland.algebra.base import TINY, TINY_LOW
from fenland.arguments import check_among, check_number, check_positive, check_whole
from fenland.rules.combine import Coefficient, Combine, Gram, ScalarName, ratio


@dataclass(frozen=True)
class _Mixture(Combine):
    """Reads all Gram numbers and keeps g."""

    @property
    def scalars(self) -> frozenset[ScalarName]:
        return frozenset(("g", "h", "gh"))

    @property
    def keeps_g(self) -> bool:
        return True


@dataclass(frozen=True)
class Penalty(_Mixture):
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

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        if self.unit_gradient:
            return (1.0 - self.alpha) * inverse(gram.g), self.alpha
        return 1.0 - self.alpha, self.alpha


@dataclass(frozen=True)
class SurrogateGap(_Mixture):
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

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        if self.minimize_fp:
            return -self.alpha, 1.0 + self.alpha * projection(gram, gram.h)
        return 1.0 - self.alpha * projection(gram, gram.g), self.alpha


@dataclass(frozen=True)
class Weighted(_Mixture):
    r"""d = g + kappa * (h - g), kappa = gamma / (1 - gamma): sharpness as a weighted term.

    gamma = 0.5 is SAM, gamma = 0 the base. decoupled (the paper's): the base gets g, and after its step
    w <- w - lr * kappa * (h - g), free of momentum and preconditioner. So with SGD's momentum mu the term is 1 - mu
    times weaker than it looks. Source: Yue et al. 2023, arXiv 2305.15817 (WSAM).

    Attributes:
        gamma: weight of sharpness, in [0, 1). 0.9: the authors' default; 0.8 to 0.95 is useful.
        decoupled: False puts the whole d through the base.
    """

    gamma: float = 0.9
    decoupled: bool = True

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma, low=0.0)
        if self.gamma >= 1:
            raise ValueError(f"gamma = {self.gamma!r}: must lie in [0, 1); gamma / (1 - gamma) weighs the sharpness")

    @property
    def kappa(self) -> float:
        """gamma / (1 - gamma)."""
        return self.gamma / (1 - self.gamma)

    @property
    def corrects(self) -> bool:
        return self.decoupled

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        return (1.0, 0.0) if self.decoupled else (1.0 - self.kappa, self.kappa)

    def correction(self, gram: Gram) -> tuple[float, float] | None:
        return (self.kappa, -self.kappa) if self.decoupled else None


@dataclass(frozen=True)
class Spherical(_Mixture):
    r"""d = ||h|| * slerp(g / ||g||, h / ||h||; alpha), i.e. with the angle theta between them
    d = (||h|| / ||g||) * sin((1 - alpha) theta) / sin(theta) * g + sin(alpha theta) / sin(theta) * h.

    alpha = 1 is SAM, alpha = 0 "SGD+", larger alpha turns beyond h. Where sin(theta) < 1e-8 it is the straight mean,
    slerp's limit. Source: Chen and Zhou 2026, arXiv 2603.10048 (XSAM). There alpha is the one of a grid whose point
    w + rho_max * v(alpha), v = d / ||d||, has the highest loss on the batch, looked for now and then: `grid`.

    Attributes:
        alpha: position on the arc from g to h; with a grid, until the first search. 0.5, its middle: ours.
        grid: the values of alpha that a search compares, one more closure call each; () keeps alpha fixed.
        rho_max: radius of the search (unit of w). 0.3: the authors' README for CIFAR-100.
        every: steps between searches, the first at step 0. 100: ours; the paper's period was not at hand.
    """

    alpha: float = 0.5
    grid: tuple[float, ...] = ()
    rho_max: float = 0.3
    every: int = 100

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        for alpha in self.grid:
            check_number("grid", alpha)
        check_positive("rho_max", self.rho_max, "no search (grid=())")
        check_whole("every", self.every, 1)

    @property
    def starts(self) -> dict[str, float]:
        return {"alpha": float(self.alpha)} if self.grid else {}

    def searches(self, step: int) -> bool:
        return bool(self.grid) and step % self.every == 0

    def candidates(self, gram: Gram) -> list[tuple[float, Coefficient, Coefficient]]:
        found: list[tuple[float, Coefficient, Coefficient]] = []
        for alpha in self.grid:
            a, b = Spherical(alpha).coefficients(gram)
            unit = self.rho_max * inverse(gram.h)
            found.append((alpha, a * unit, b * unit))
        return found

    def note(self, number: float, memory: dict[str, float]) -> None:
        memory["alpha"] = number

    def tuned(self, memory: dict[str, float]) -> Combine:
        return replace(self, alpha=memory["alpha"]) if self.grid else self

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        cosine = (projection(gram, gram.h) * ratio(gram.h, gram.g)).clamp(-1.0, 1.0)
        theta = torch.arccos(cosine)
        sine = torch.sin(theta)
        arc = sine >= _PARALLEL
        safe = torch.where(arc, sine, 1.0)
        on_g = torch.where(arc, torch.sin((1 - self.alpha) * theta) / safe, 1 - self.alpha)
        on_h = torch.where(arc, torch.sin(self.alpha * theta) / safe, self.alpha)
        return on_g * gram.h * inverse(gram.g), on_h


_PARALLEL = 1e-8  # sin(theta) below which the authors' code too leaves the sphere


@dataclass(frozen=True)
class Reuse(_Mixture):
    r"""d = h, and v = h - <h, g> g / ||g||^2 is kept; on steps without ascent d = g + alpha * (||g|| / ||v||) * v.

    Goes with `when=EveryK(k)`; k = 1 is SAM. Before the first ascent d = g. v ages up to k - 1 steps.
    Source: Liu, Mai, Chen, Hsieh, You 2022, arXiv 2203.02714 (LookSAM); the official repository holds no code.

    Attributes:
        alpha: weight of v. 0.7: the value of the known ports.
    """

    alpha: float = 0.7

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    @property
    def keeps(self) -> bool:
        return True

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        return 0.0, 1.0

    def learn(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        return -projection(gram, gram.g), 1.0

    def reuse(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        return 1.0, self.alpha * ratio(gram.g, gram.h)


@dataclass(frozen=True)
class Control(_Mixture):
    r"""d = (direction of g or h) * (length of g or h): the four cells of direction against length.

    (g, g) is the base at two passes, (h, h) SAM, (h, g) Stable SAM, (g, h) the "step size only" control in the code of
    Andriushchenko and Flammarion 2022, arXiv 2206.06232. Where a vector has no direction, d is left as long as it is.
    """

    direction: Literal["g", "h"] = "g"
    length: Literal["g", "h"] = "h"

    def __post_init__(self) -> None:
        check_among("direction", self.direction, ("g", "h"))
        check_among("length", self.length, ("g", "h"))

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        sizes = {"g": gram.g, "h": gram.h}
        factor = 1.0 if self.direction == self.length else ratio(sizes[self.length], sizes[self.direction])
        return (factor, 0.0) if self.direction == "g" else (0.0, factor)


def inverse(s: Scalar) -> Scalar:
    """1 / s, and 0 where s is too small to divide by."""
    least = TINY.get(s.dtype, TINY_LOW)
    return torch.where(s < least, torch.zeros_like(s), s.clamp_min(least).reciprocal())


def projection(gram: Gram, length: Scalar) -> Scalar:
    """<g, h> / length^2, 0 for a vector of no length; divided twice, so that squares do not underflow."""
    if gram.gh is None:
        raise RuntimeError("this combine reads <g, h>: name 'gh' in its scalars")
    return gram.gh * inverse(length) * inverse(length)
