"""The radius rho: a number, or a function of the step, or of the learning rate."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fenland.arguments import check_number, check_whole

Radius: TypeAlias = "float | Callable[[int], float]"


class LearningRateTied(ABC):
    """A radius that follows the learning rate of its group (unit of w)."""

    @abstractmethod
    def at(self, lr: float) -> float:
        """The radius at learning rate lr."""

    def __call__(self, step: int) -> float:
        """Without a learning rate there is no radius."""
        raise ValueError(f"rho = {self!r}: follows the learning rate, but the base's groups have no 'lr'")


@dataclass(frozen=True)
class TiedToLearningRate(LearningRateTied):
    r"""rho = rho_min + (rho_max - rho_min) * (lr - lr_min) / (lr_max - lr_min), the lr kept within its bounds.

    The rate is the one that the base is stepped with. Without the bounds the authors' formula leaves [rho_min, rho_max]
    during warm-up. Source: Zhuang et al. 2022, arXiv 2203.08065 (GSAM); ViT-B/32: rho 0.6 to 0.1 at lr 3e-3.

    Attributes:
        rho_min: radius at lr_min and below (unit of w).
        rho_max: radius at lr_max and above.
        lr_max: the largest learning rate.
        lr_min: the smallest.
    """

    rho_min: float
    rho_max: float
    lr_max: float
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rho_min", "rho_max", "lr_max", "lr_min"):
            check_number(name, getattr(self, name), low=0.0)
        if not self.lr_max > self.lr_min:
            raise ValueError(f"lr_max = {self.lr_max!r}: must be larger than lr_min = {self.lr_min!r}")

    def at(self, lr: float) -> float:
        share = (lr - self.lr_min) / (self.lr_max - self.lr_min)
        return self.rho_min + (self.rho_max - self.rho_min) * min(max(share, 0.0), 1.0)


@dataclass(frozen=True)
class Cosine:
    """rho from `start` at step 0 to `stop` at step `steps` along half a cosine, then constant (unit of w).

    A callable of the step like any other: use it for `rho`, for LE-SAM's sigma or for RST's p.
    """

    start: float
    stop: float
    steps: int

    def __post_init__(self) -> None:
        check_number("start", self.start, low=0.0)
        check_number("stop", self.stop, low=0.0)
        check_whole("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        share = min(step / self.steps, 1.0)
        return self.stop + (self.start - self.stop) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class WarmUp:
    """`after` times (step + 1) / steps during the first `steps` steps, then `after` itself, a number or a callable."""

    after: float | Callable[[int], float]
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.after):
            check_number("after", self.after, low=0.0)
        check_whole("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        full = self.after(step) if callable(self.after) else self.after
        return full * min((step + 1) / self.steps, 1.0)


def current_radius(rho: Radius, step: int, name: str = "rho", lr: object = None) -> float:
    """The radius at `step` (from 0): rho itself, rho(step), or rho.at(step, lr) of a schedule that reads the lr.

    Raises:
        ValueError: the radius is negative, infinite or NaN.
        TypeError: it is not a number.
    """
    if isinstance(rho, LearningRateTied) and lr is not None:
        value: object = rho.at(float(lr))  # type: ignore[arg-type]
    else:
        value = rho(step) if callable(rho) else rho
    where = f"{name}({step})" if callable(rho) else name
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{where} = {value!r}: the radius must be a number (or a callable of the step that returns one)"
        )
    largest = sys.float_info.max  # whole numbers have no bound in Python
    if not 0 <= value <= largest:
        raise ValueError(f"{where} = {value!r}: the radius must be finite and >= 0; 0 switches the ascent off")
    return float(value)
