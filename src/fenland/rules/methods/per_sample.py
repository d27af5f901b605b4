"""Methods that choose samples: the closure returns one loss a sample, and the engine runs backward on the chosen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fenland.arguments import check_between
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.requests import Grad, Program, Update


@dataclass(frozen=True)
class _PerSample(Method):
    """d = h on chosen samples."""

    per_sample = True
    reads_norms = False


@dataclass(frozen=True)
class HardSamples(_PerSample):
    r"""Both gradients on the samples with the largest losses at w: one forward over the batch, then two short passes.

    Source: Ni et al. 2022, arXiv 2210.12864 (K-SAM); no official code. The paper's numbers (about half the batch, fewer
    for the ascent) are quoted from memory.

    Attributes:
        ascent: share of the batch that gives g.
        descent: share of the batch that gives h, and d.
    """

    ascent: float = 0.5
    descent: float = 0.5

    def __post_init__(self) -> None:
        check_between("ascent", self.ascent, 0.0, 1.0)
        check_between("descent", self.descent, 0.0, 1.0)

    def step(self, s: Context) -> Program:
        g = yield Grad(samples=lambda losses: largest(losses, self.ascent))
        if not s.due(g):
            yield Update(g)
            return
        yield Update((yield Grad(at=s.climb(g), samples=largest(g.losses, self.descent), final=True)))


@dataclass(frozen=True)
class LossIncrease(_PerSample):
    r"""h on the samples whose loss rises most from w to w + e; g on all of them.

    ESAM's sharpness-sensitive data selection. Source: Du et al. 2022, arXiv 2110.03141. The authors' code drops one
    more sample (a strict > on the k-th value); here exactly the share is kept, and at least one.

    Attributes:
        keep: gamma of the paper, the share of the batch that gives h. 0.5: the authors' for ResNet-18.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        check_between("keep", self.keep, 0.0, 1.0)

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if not s.due(g):
            yield Update(g)
            return
        risen = lambda there: largest(there - g.losses, self.keep)  # noqa: E731
        yield Update((yield Grad(at=s.climb(g), samples=risen, final=True)))


def largest(values: Tensor, share: float) -> Tensor:
    """Indices of the share of `values` (B,) that is largest, at least one, in the order of the batch."""
    count = max(1, round(share * values.numel()))
    return values.topk(count).indices.sort().values
