"""On which steps does the ascent run, if not on all?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from fenland.algebra import Scalar
from fenland.arguments import check_between, check_instance, check_number, check_whole
from fenland.rules.choices import When


@dataclass(frozen=True)
class EveryK(When):
    """Steps with (step - offset) % k == 0 ascend: 1 + 1/k gradient evaluations a step.

    Before step `offset` none does. With offset = 0 the first step ascends (LookSAM, Liu et al. 2022, arXiv 2203.02714:
    there must be a v to reuse); MosaicML's composer takes (step + 1) % k == 0, which is offset = k - 1.

    Attributes:
        k: length of the interval, in steps.
        offset: the first step that ascends.
    """

    k: int = 5
    offset: int = 0

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_whole("offset", self.offset, 0)

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        return step >= self.offset and (step - self.offset) % self.k == 0


@dataclass(frozen=True)
class Window(When):
    """Steps with start <= step < stop ascend (training's end only, or all but the learning rate's warm-up).

    Source: Andriushchenko and Flammarion 2022, arXiv 2206.06232 (switching SAM on late). stop = None: to the end;
    stop = start: never.
    """

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        check_whole("start", self.start, 0)
        if self.stop is not None:
            check_whole("stop", self.stop, 0)
            if self.stop < self.start:
                raise ValueError(f"stop = {self.stop}: must be >= start = {self.start}, or no step would ascend")

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        return self.start <= step and (self.stop is None or step < self.stop)


@dataclass(frozen=True)
class WithProbability(When):
    """A step ascends with probability p: 1 + p gradient evaluations a step.

    The draw is a function of seed and step alone, so all ranks agree, a resumed run goes on alike, and no generator of
    yours is touched. Source: Zhao, Zhang, Hu 2022, arXiv 2203.09962 (RST, first called SS-SAM).

    Attributes:
        p: probability, or a callable of the step (from 0) for the paper's schedules.
        seed: of the draws.
    """

    p: float | Callable[[int], float] = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)
        if not callable(self.p):
            check_between("p", self.p, 0.0, 1.0)

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        p = self.p(step) if callable(self.p) else self.p
        check_between(f"p({step})", p, 0.0, 1.0)
        return random.Random(f"{self.seed}/{step}").random() < p


@dataclass(frozen=True)
class AdaptiveToNorm(When):
    r"""A step ascends where s = ||g||^2 >= mu + c_t * sigma, with running mean mu and deviation sigma of s.

        mu <- delta * mu + (1 - delta) * s,  sigma^2 <- delta * sigma^2 + (1 - delta) * (s - mu)^2,
        c_t = (t / T) * lambda1 + (1 - t / T) * lambda2

    The first step sets mu = s, sigma = 0 and ascends. Costs one host synchronisation a step. ||g|| is that of the
    all-reduced gradient. Source: Jiang, Yang, Zhang, Kwok 2023, arXiv 2304.14647 (AE-SAM); its constants are quoted
    from memory, they were not checked against the paper.

    Attributes:
        total: T, the length of training in steps; from there on t / T = 1.
        delta: decay of the running moments.
        lambda1: threshold at the end, in deviations.
        lambda2: threshold at the start.
    """

    total: int
    delta: float = 0.9
    lambda1: float = -1.0
    lambda2: float = 1.0

    def __post_init__(self) -> None:
        check_whole("total", self.total, 1)
        check_between("delta", self.delta, 0.0, 1.0)
        check_number("lambda1", self.lambda1)
        check_number("lambda2", self.lambda2)

    @property
    def looks_at_gradient(self) -> bool:
        return True

    @property
    def starts(self) -> dict[str, float]:
        return {"norm_mean": -1.0, "norm_var": 0.0}  # below 0: not yet met

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        length = float(grad_norm)
        if not math.isfinite(length):
            return False  # such a step is skipped: it must not enter the moments
        s = min(length, _LARGEST) ** 2
        old_mean, old_variance = memory.get("norm_mean", -1.0), memory.get("norm_var", 0.0)
        if not old_mean >= 0:  # the first step
            old_mean, old_variance = s, 0.0
        mean = memory["norm_mean"] = self.delta * old_mean + (1 - self.delta) * s
        variance = memory["norm_var"] = self.delta * old_variance + (1 - self.delta) * (s - mean) ** 2
        done = min(step / self.total, 1.0)
        return s >= mean + (done * self.lambda1 + (1 - done) * self.lambda2) * math.sqrt(variance)


_LARGEST = 1e70  # ||g||; its fourth power is the largest number that the moments hold


@dataclass(frozen=True)
class Both(When):
    """A step ascends where both rules say so; both are asked on every step, so running moments see all of them."""

    first: When
    second: When

    def __post_init__(self) -> None:
        check_instance("first", self.first, When, "fenland.EveryK(2)")
        check_instance("second", self.second, When, "fenland.EveryK(2)")
        shared = sorted(self.first.starts.keys() & self.second.starts.keys())
        if shared:
            raise ValueError(
                f"second = {self.second}: keeps numbers under the names of {self.first}'s ({', '.join(shared)}), so "
                "that each would overwrite the other's; use one of the two"
            )

    @property
    def looks_at_gradient(self) -> bool:
        return self.first.looks_at_gradient or self.second.looks_at_gradient

    @property
    def starts(self) -> dict[str, float]:
        return self.first.starts | self.second.starts

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        return all([rule.ascends(step, grad_norm, memory) for rule in (self.first, self.second)])
