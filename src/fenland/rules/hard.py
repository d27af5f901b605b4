"""Sources that choose samples: the closure returns one loss a sample, and the engine runs backward on the chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fenland.algebra import Vector
from fenland.arguments import check_between
from fenland.rules.context import At
from fenland.rules.source import Source, State


@dataclass(frozen=True)
class HardSamples(Source):
    r"""Both gradients on the samples with the largest losses at w: one forward over the batch, then two short passes.

    Source: Ni et al. 2022, arXiv 2210.12864 (K-SAM); no official code. The paper's numbers (about half the batch, fewer
    for the ascent) are quoted from memory.

    Attributes:
        ascent: share of the batch that gives g.
        descent: share of the batch that gives h, and d.
    """

    per_sample: ClassVar[bool] = True
    ascent: float = 0.5
    descent: float = 0.5

    def __post_init__(self) -> None:
        check_between("ascent", self.ascent, 0.0, 1.0)
        check_between("descent", self.descent, 0.0, 1.0)

    def first(self, losses: Tensor) -> Tensor | None:
        return largest(losses, self.ascent)

    def ahead(self, losses: Tensor) -> Tensor | None:
        return largest(losses, self.descent)

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        return g


@dataclass(frozen=True)
class LossIncrease(Source):
    r"""h on the samples whose loss rises most from w to w + e; g on all of them.

    ESAM's sharpness-sensitive data selection. Source: Du et al. 2022, arXiv 2110.03141. The authors' code drops one
    more sample (a strict > on the k-th value); here exactly the share is kept, and at least one.

    Attributes:
        keep: gamma of the paper, the share of the batch that gives h. 0.5: the authors' for ResNet-18.
    """

    per_sample: ClassVar[bool] = True
    keep: float = 0.5

    def __post_init__(self) -> None:
        check_between("keep", self.keep, 0.0, 1.0)

    def second(self, losses: Tensor, there: Tensor) -> Tensor | None:
        return largest(there - losses, self.keep)

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        return g


def largest(values: Tensor, share: float) -> Tensor:
    """Indices of the share of `values` (B,) that is largest, at least one, in the order of the batch."""
    count = max(1, round(share * values.numel()))
    return values.topk(count).indices.sort().values
