"""A method for replicas: the very ball, source, combine and schedule of a preset, or a reason why it cannot run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fenland.optimizer import SharpnessAware
from fenland.presets import PRESETS
from fenland.rules import (
    L2,
    Always,
    Ascend,
    AtRandomPoint,
    Ball,
    LossBudget,
    Method,
    ParameterNames,
    RandomTensors,
    Sparse,
    Spectral,
    When,
    Window,
    ZScore,
)

_NAMES = "asks for names or layers of a module, which replicas have none of"
PLAIN = ("SGD", "GD")  # names of the base alone


@dataclass(frozen=True)
class Rule:
    """What one step does, without radius and learning rate, which are the grid's.

    Attributes:
        ball: the norm that bounds e.
        method: the program of a step.
        when: on which steps the ascent runs.
        name: for messages and figures.

    Raises:
        ValueError: replicas cannot run it; the message says why.
    """

    ball: Ball = L2()  # noqa: RUF009 - rules are frozen
    method: Method = Ascend()  # noqa: RUF009
    when: When = Always()  # noqa: RUF009
    name: str = "rule"

    def __post_init__(self) -> None:
        for refused, reason in (
            (self.ball.geometry is not None, "moves on manifolds, which replicas have none of"),
            (_asks_for_names(self.ball), _NAMES),
            (self.method.per_sample, "chooses samples by their loss, and these problems have no samples"),
            (self.method.searches, "compares the loss at several points, and each replica has its own"),
            (self.when.looks_at_gradient, "decides by ||g|| on the host, and each replica has its own"),
        ):
            if refused:
                raise ValueError(f"{self.name}: not for replicas, it {reason}")

    @property
    def base_alone(self) -> bool:
        """Whether no step ever ascends."""
        return isinstance(self.when, Window) and self.when.stop is not None and self.when.stop <= self.when.start

    @property
    def compiles(self) -> bool:
        """Whether a step is the same arithmetic each time: nothing drawn, sorted, factorised or scheduled."""
        odd = (Sparse, ZScore, RandomTensors, Spectral, AtRandomPoint)
        plain = isinstance(self.when, Always) or self.base_alone
        by_step = isinstance(self.ball, LossBudget) and callable(self.ball.sigma)
        return plain and not by_step and not isinstance(self.ball, odd) and not isinstance(self.method, odd)


def _asks_for_names(ball: Ball) -> bool:
    """Whether the ball refuses a parameter without a name."""
    try:
        ball.check(ParameterNames([{"params": [torch.zeros(1)]}], None))
    except ValueError:
        return True
    return False


def rule(method: str | SharpnessAware | Rule, **options: Any) -> Rule:
    """The rule of a preset by name ("SSAM", "SSAM-U", ...), of an optimizer, or the base alone ("SGD").

    Args:
        method: a name in `fenland.PRESETS`, "SGD", or a SharpnessAware, of which the choices are taken.
        options: the preset's own, such as p=4 or alpha=0.5; not the radius, which is the grid's.

    Raises:
        ValueError: unknown, or not for replicas; the message says why.

    Example:
        >>> rule("GSAM", alpha=0.4).method.combine
        SurrogateGap(alpha=0.4, minimize_fp=True)
    """
    if isinstance(method, Rule):
        return method
    if isinstance(method, SharpnessAware):
        return _of_optimizer(method, type(method).__name__)
    if method in PLAIN:
        return Rule(when=Window(0, 0), name=method)
    row = PRESETS.get(method)
    if row is None:
        raise ValueError(f"method = {method!r}: must be one of {', '.join([*PLAIN, *PRESETS])}")
    if "model" in row.needs:
        raise ValueError(f"{method}: not for replicas, it {_NAMES}")
    fill: dict[str, Any] = {"full_norm": _unbound, "total_steps": 1}
    needed = {name: value for name, value in fill.items() if name in row.needs}
    base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=1.0, momentum=0.5)
    return _of_optimizer(row.build(base, **{**needed, **options}), method)


def _of_optimizer(opt: SharpnessAware, name: str) -> Rule:
    c = opt.rules
    if c.max_norm is not None or c.nonfinite != "skip":
        raise ValueError(f'{name}: replicas know neither max_norm nor another nonfinite than "skip"')
    return Rule(c.ball, c.method, c.when, name)


def _unbound() -> float:
    raise RuntimeError("the norm of the full gradient is the problem's: run() supplies it")
