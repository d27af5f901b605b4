"""What a method asks for, one request at a time: gradients, the highest of several losses, and last its update."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from fenland.algebra import Lazy


@dataclass(slots=True, eq=False)
class Climb:
    """e = share * rho * (steepest perturbation of radius 1 along a), formed when the weights go there."""

    a: Lazy
    share: float = 1.0


@dataclass(slots=True, eq=False)
class Grad:
    """Asks for the gradient at w + e; the answer is a `Leaf`.

    Attributes:
        at: e, `s.climb(a)` or a vector; None for the gradient at w.
        keep: vectors whose memory must survive the pass; every other gradient's is given to w + e or freed.
        final: a promise that the update is the answer times a plain number: such a pass may be all-reduced as it is.
        samples: indices of the samples whose mean loss is taken, or a function of the losses (B,) there; None for all.
            Only in methods that declare `per_sample`.
        dual: the ball's dual norm of the answer, taken where it was, is wanted as `answer.dual`.
    """

    at: Climb | Lazy | None = None
    keep: Lazy | tuple[Lazy, ...] | None = None
    final: bool = False
    samples: Tensor | Callable[[Tensor], Tensor] | None = None
    dual: bool = False


@dataclass(slots=True, eq=False)
class Highest:
    """Asks which of the points w + e has the highest loss on the batch; the answer is its key.

    Attributes:
        candidates: e by key.
    """

    candidates: Mapping[float, Lazy]


@dataclass(slots=True, eq=False)
class Update:
    """The end of a step.

    Attributes:
        d: what the base gets.
        after: added to w after the base's step, times the learning rate of each group: w += lr * after.
    """

    d: Lazy
    after: Lazy | None = None


Request: TypeAlias = "Grad | Highest | Update"
Program: TypeAlias = "Generator[Request, Any, None]"  # what it is sent depends on the request
