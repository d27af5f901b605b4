"""What does the base get from g and h? d = alpha * g + beta * h, with scalars from three Gram numbers.

g is the gradient at w, h the gradient at the ascent point w + e. A combine is a pure function of ||g||, ||h|| and
<g, h>, so it runs unchanged on sharded tensors and on stacked replicas, and the engine applies it in one fused pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch

from fenland.algebra import Scalar
from fenland.algebra.base import TINY, TINY_LOW
from fenland.arguments import check_among, check_instance

Coefficient: TypeAlias = "Scalar | float"
ScalarName: TypeAlias = Literal["g", "h", "gh"]


@dataclass(frozen=True)
class Gram:
    """What is known of the two gradients as scalars.

    Norms instead of squares, so that gradients of 1e-20 do not vanish in float32.

    Attributes:
        g: ||g||_2 over all parameters (unit: loss per unit of w).
        h: ||h||_2 likewise.
        gh: <g, h>, None where the combine did not ask for it.
        dual_g: the ball's dual norm of g at w, over what moves; None unless the combine `reads_dual`.
        dual_h: that of h at w + e.
    """

    g: Scalar
    h: Scalar
    gh: Scalar | None = None
    dual_g: Scalar | None = None
    dual_h: Scalar | None = None

    def length(self, alpha: Coefficient, beta: Coefficient) -> Scalar:
        """||alpha * g + beta * h||_2."""
        if isinstance(alpha, float) and alpha == 0.0:
            return self.h * (beta.abs() if isinstance(beta, torch.Tensor) else abs(beta))
        if self.gh is None:
            raise RuntimeError("the length of alpha * g + beta * h needs <g, h>: name 'gh' in the combine's scalars")
        square = (alpha * self.g) ** 2 + 2 * alpha * beta * self.gh + (beta * self.h) ** 2
        return square.clamp_min(0).sqrt()


@dataclass(frozen=True)
class Combine(ABC):
    """Scalars alpha, beta of d = alpha * g + beta * h."""

    @property
    def scalars(self) -> frozenset[ScalarName]:
        """Which of ||g|| ("g"), ||h|| ("h") and <g, h> ("gh") are read."""
        return frozenset()

    @property
    def keeps_g(self) -> bool:
        """Whether g is needed after the ascent (one more parameter-sized buffer). False means alpha = 0."""
        return False

    @property
    def keeps(self) -> bool:
        """Whether a vector v lives between steps (`learn`, `reuse`)."""
        return False

    @property
    def reads_dual(self) -> bool:
        """Whether the ball's dual norms of g at w and of h at w + e are read (two more passes)."""
        return False

    @abstractmethod
    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        """(alpha, beta)."""

    def learn(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        """(a, b) of v = a * g + b * h, taken on every step that ascends, where `keeps`."""
        raise NotImplementedError(f"{type(self).__name__} keeps no vector")

    def reuse(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        """(alpha, beta) of d = alpha * g + beta * v on steps that do not ascend; `gram` is of g and v."""
        raise NotImplementedError(f"{type(self).__name__} keeps no vector")

    @property
    def starts(self) -> dict[str, float]:
        """The rule's numbers between steps with their first values (`note`, `tuned`)."""
        return {}

    def searches(self, step: int) -> bool:
        """Whether this step looks for the rule's number by the loss at several points (`candidates`)."""
        return False

    def candidates(self, gram: Gram) -> list[tuple[float, Coefficient, Coefficient]]:
        """(number, a, b) of the points w + a * g + b * h that a search compares."""
        raise NotImplementedError(f"{type(self).__name__} searches nothing")

    def note(self, number: float, memory: dict[str, float]) -> None:
        """Keep the number whose point had the highest loss."""
        raise NotImplementedError(f"{type(self).__name__} searches nothing")

    def tuned(self, memory: dict[str, float]) -> Combine:
        """The rule with the number that was kept."""
        return self

    @property
    def corrects(self) -> bool:
        """Whether w is corrected after the base's step (`correction`)."""
        return False

    def correction(self, gram: Gram) -> tuple[float, float] | None:
        """(a, b) of what is added to w after the base's step, w += lr * (a * g + b * h); None for nothing."""
        return None


@dataclass(frozen=True)
class AtAscentPoint(Combine):
    """d = h: SAM. Source: Foret et al. 2021, arXiv 2010.01412, eq. (3) (its second-order term dropped)."""

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        return 0.0, 1.0


@dataclass(frozen=True)
class Renormalize(Combine):
    """d = gamma * d', gamma = ||g|| / ||d'||: any combine d', brought back to the length of the clean gradient.

    With d' = h it is Stable SAM. ||d|| = ||g|| exactly (gamma = 1 where d' = 0). Norms are plain L2 over all
    parameters, g's before any filter or mask.
    Source: Tan, Zhang, Liu, Wang, Hao, JMLR 2025, arXiv 2401.07250; composition with relatives is ours.

    Attributes:
        after: the combine to renormalise.
        cap: upper bound on gamma (no unit); the authors' code carries min(1, gamma) as a comment. None: no bound.
        gamma_norm: "l2", or "metric" for the authors' code on adaptive balls: the ball's dual norms, of g at w and of h
            at w + e, e.g. || |w| g || / || |w + e| h || for ASAM's. Then ||d|| is not ||g||. Only for d' = h.
    """

    after: Combine = AtAscentPoint()
    cap: float | None = None
    gamma_norm: Literal["l2", "metric"] = "l2"

    def __post_init__(self) -> None:
        check_instance("after", self.after, Combine, "fenland.AtAscentPoint()")
        check_among("gamma_norm", self.gamma_norm, ("l2", "metric"))
        if self.reads_dual and not isinstance(self.after, AtAscentPoint):
            raise ValueError(f'gamma_norm = "metric": only for after=AtAscentPoint(), not {self.after}; use "l2"')
        if isinstance(self.after, Renormalize):
            raise ValueError("Renormalize(after=Renormalize(...)): renormalising twice changes nothing; drop one")
        if self.after.corrects:
            raise ValueError(
                f"Renormalize(after={self.after}): it corrects w after the base's step, where d has been used already; "
                "renormalise the coupled form instead"
            )
        if self.cap is not None and not self.cap > 0:
            raise ValueError(f"cap = {self.cap!r}: the bound on gamma must be > 0, or None for no bound")

    @property
    def scalars(self) -> frozenset[ScalarName]:
        own: frozenset[ScalarName] = frozenset(("g", "h", "gh") if self.keeps_g else ("g", "h"))
        return own | self.after.scalars

    @property
    def keeps_g(self) -> bool:
        return self.after.keeps_g

    @property
    def keeps(self) -> bool:
        return self.after.keeps

    @property
    def reads_dual(self) -> bool:
        return self.gamma_norm == "metric"

    def learn(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        return self.after.learn(gram)

    def reuse(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        alpha, beta = self.after.reuse(gram)
        gamma = ratio(gram.g, gram.length(alpha, beta))
        return alpha * gamma, beta * gamma

    @property
    def starts(self) -> dict[str, float]:
        return self.after.starts

    def searches(self, step: int) -> bool:
        return self.after.searches(step)

    def candidates(self, gram: Gram) -> list[tuple[float, Coefficient, Coefficient]]:
        return self.after.candidates(gram)

    def note(self, number: float, memory: dict[str, float]) -> None:
        self.after.note(number, memory)

    def tuned(self, memory: dict[str, float]) -> Combine:
        return replace(self, after=self.after.tuned(memory))

    def coefficients(self, gram: Gram) -> tuple[Coefficient, Coefficient]:
        alpha, beta = self.after.coefficients(gram)
        if gram.dual_g is not None and gram.dual_h is not None:
            gamma = ratio(gram.dual_g, gram.dual_h)
        else:
            gamma = ratio(gram.g, gram.length(alpha, beta))
        if self.cap is not None:
            gamma = gamma.clamp_max(self.cap)
        return (alpha * gamma if self.keeps_g else 0.0), beta * gamma


def ratio(numerator: Scalar, denominator: Scalar) -> Scalar:
    """numerator / denominator, and 1 where the denominator is zero (or too small to divide by)."""
    least = TINY.get(denominator.dtype, TINY_LOW)
    return torch.where(denominator > least, numerator / denominator.clamp_min(least), torch.ones_like(denominator))
