"""Sharpness: by how much the loss rises around the weights, in any of fenland's balls, over a data set.

>>> found = fenland.sharpness(model, lambda m, b: F.cross_entropy(m(b[0]), b[1]), batches, rho=0.05)
>>> found.value, (found.low, found.high)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from fenland.algebra import Vector
from fenland.arguments import check_among, check_between, check_number, check_seed, check_whole
from fenland.diagnostics.batches import examples, split
from fenland.diagnostics.chosen import Chosen
from fenland.diagnostics.climbing import Climber
from fenland.diagnostics.intervals import interval
from fenland.diagnostics.objective import LossFn, Mode, Objective
from fenland.diagnostics.preserve import displaced
from fenland.rules import L2, Adaptive, Ball

Kind = Literal["first_order", "worst", "average"]
LEAST_SHARE = 1 / 64  # of the way to a new point, below which the ascent has nowhere left to go


@dataclass(frozen=True)
class Sharpness:
    """A measure of sharpness with its interval.

    Attributes:
        value: mean of L(w + e) - L(w) (unit: loss).
        low: lower end of the interval; NaN where there is one value only.
        high: upper end.
        level: confidence level of the interval.
        over: what the interval is over: "batches" (at the same e), "micro-batches" (each with its own e) or "draws".
        values: one for each of them.
        loss: L(w), over the same examples.
        slope: rho * ||g||*, the rise that the gradient alone predicts (mean over micro-batches with m).
        kind: "first_order", "worst" or "average".
        rho: radius in the ball's norm.
        ball: the ball, as text.
        m: examples in a micro-batch; None where all data share one e.
        left_out: examples in remainders of batches that make no whole micro-batch.
    """

    value: float
    low: float
    high: float
    level: float
    over: str
    values: tuple[float, ...]
    loss: float
    slope: float
    kind: str
    rho: float
    ball: str
    m: int | None = None
    left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return dataclasses.asdict(self)


def sharpness(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    rho: float = 0.05,
    kind: Kind = "first_order",
    ball: Ball | None = None,
    adaptive: bool = False,
    m: int | None = None,
    steps: int = 20,
    draws: int = 20,
    level: float = 0.95,
    mode: Mode = "eval",
    parameters: Chosen = None,
    dtype: torch.dtype | None = None,
    size: Callable[[Any], float] | None = None,
    seed: int = 0,
) -> Sharpness:
    r"""Measure L(w + e) - L(w) for perturbations of length rho, over all batches; nothing is changed.

    - "first_order": e = rho * argmax <g, e>, SAM's own (Foret et al. 2021, arXiv 2010.01412, eq. 2).
    - "worst": the largest L(w + e) found in ||e|| <= rho by `steps` steps of ascent from there. Each goes part of the
      way to the ball's steepest point for the gradient at w + e, and a shorter part after a step that gained nothing
      (Frank and Wolfe 1956); it never ends below "first_order". Where g = 0 it starts in a random direction. A lower
      bound of the true maximum.
    - "average": the mean over random directions of length rho, a Gaussian scaled to the ball's surface.

    With `m`, each micro-batch of m examples has its own e, and the value is the mean of their rises: m-sharpness
    (Foret et al. 2021, section 4.1; Andriushchenko and Flammarion 2022, arXiv 2206.06232). Otherwise one e serves all
    data. In an adaptive ball this is the sharpness that does not change with the scale of the weights (Kwon et al.
    2021, arXiv 2102.11600).

    Args:
        model: the module; it must not be sharded.
        loss_fn: a function of model and batch that returns the batch's mean loss, as in training.
        batches: a list of batches or a loader that gives the same examples each time.
        rho: radius in the ball's norm, > 0.
        kind: "first_order", "worst" or "average".
        ball: any ball of `fenland.rules` without a retraction; None is L2. "worst" and "average" need a norm.
        adaptive: short for ball=Adaptive(): element-wise, eta 0.01.
        m: examples in a micro-batch; the tensors of a batch, all with the examples first, are cut.
        steps: of "worst", each one gradient over the data.
        draws: of "average", each one pass over the data.
        level: of the interval.
        mode: see `Objective`.
        parameters: see `Objective`.
        dtype: see `Objective`; rises below about 1e-6 of the loss need `torch.float64`.
        size: see `Objective`.
        seed: of the draws, and of the start of "worst" where g = 0.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, no batch, a loss that is not finite, fewer than m examples in each batch.
        ImportError: SciPy is missing (it has the quantiles of the intervals).
    """
    check_number("rho", rho, low=0.0)
    if rho == 0:
        raise ValueError("rho = 0: must be > 0; the rise over no distance is 0")
    check_among("kind", kind, ("first_order", "worst", "average"))
    check_whole("steps", steps, 1)
    check_whole("draws", draws, 2)
    check_between("level", level, 0.5, 0.9999)
    check_seed(seed)
    if m is not None:
        check_whole("m", m, 1)
    if adaptive and ball is not None:
        raise ValueError(f"adaptive = True with ball = {ball!r}: give one of them")
    chosen = ball or (Adaptive() if adaptive else L2())
    objective = Objective(model, loss_fn, batches, mode=mode, parameters=parameters, dtype=dtype, size=size)
    climb = _Climb(chosen, rho, kind, steps, draws, seed)
    if m is not None:
        return _by_micro_batch(objective, climb, m, level)
    with objective:
        before, after, slope = climb.rises(objective)
    weights = [weight for _, weight in before]
    loss = sum(x * weight for x, weight in before) / sum(weights)
    if kind == "average":
        values = [sum(x * w for x, w in run) / sum(weights) - loss for run in after]
        mean, low, high = interval(values, level)
    else:
        values = [x - y for (x, _), (y, _) in zip(after[0], before, strict=True)]
        mean, low, high = interval(values, level, weights)
    over = "draws" if kind == "average" else "batches"
    return Sharpness(mean, low, high, level, over, tuple(values), loss, slope, kind, rho, repr(chosen))


Losses = list[tuple[float, float]]  # of each batch, with its weight


@dataclass(frozen=True)
class _Climb:
    """Perturbs one objective as asked."""

    ball: Ball
    rho: float
    kind: Kind
    steps: int
    draws: int
    seed: int

    def rises(self, objective: Objective) -> tuple[Losses, list[Losses], float]:
        """Losses at w, at each w + e (one e, or one a draw), and rho * ||g||*."""
        climber = Climber(objective, self.ball)
        before = objective.losses()
        objective.note(sum(x * weight for x, weight in before) / sum(weight for _, weight in before))
        _, g = objective.gradient(at_w=True)
        slope = self.rho * climber.dual_norm(g)
        if self.kind == "average":
            generator = torch.Generator().manual_seed(self.seed)
            after = [self._at(objective, climber.random(generator, g)) for _ in range(self.draws)]
            return before, after, slope
        e = climber.unit(g)
        if self.kind == "worst":
            if not any(bool(x.any()) for x in e):  # at a critical point each direction is as good as another
                e = climber.random(torch.Generator().manual_seed(self.seed), g)
            e = self._worst(objective, climber, e, g)
        return before, [self._at(objective, e)], slope

    def _at(self, objective: Objective, unit: Vector) -> Losses:
        with displaced(objective.params, [self.rho * x for x in unit]):
            return objective.losses()

    def _worst(self, objective: Objective, climber: Climber, e: Vector, g: Vector) -> Vector:
        """The best unit-radius e on the way of a monotone ascent."""
        climber.norm(e, g)  # refuses balls that are no norm
        best, best_loss, share = e, -float("inf"), 1.0
        goal = e
        for _ in range(self.steps):
            with displaced(objective.params, [self.rho * x for x in e]):
                loss, h = objective.gradient()
            if loss > best_loss:
                best, best_loss, goal = e, loss, climber.unit(h)
            else:
                share /= 2
            if share < LEAST_SHARE:
                break
            e = [(1 - share) * x + share * y for x, y in zip(best, goal, strict=True)]
            length = climber.norm(e, g)
            e = [x / length for x in e] if length > 1 else e
        return best


def _by_micro_batch(objective: Objective, climb: _Climb, m: int, level: float) -> Sharpness:
    """The mean of the rises of all micro-batches of m examples, each with its own e."""
    rises: list[float] = []
    losses: list[float] = []
    slopes: list[float] = []
    seen = 0
    with objective:
        for batch, _ in objective.passes():
            seen += examples(batch) or 0
            for part in split(batch, m):
                with objective.alone(part) as small:
                    before, after, slope = climb.rises(small)
                losses.append(before[0][0])
                rises.append(sum(run[0][0] for run in after) / len(after) - before[0][0])
                slopes.append(slope)
    if not rises:
        raise ValueError(f"m = {m}: no batch has so many examples")
    mean, low, high = interval(rises, level)
    loss, slope = sum(losses) / len(losses), sum(slopes) / len(slopes)
    left_out = seen - m * len(rises)
    kind, rho, ball = climb.kind, climb.rho, repr(climb.ball)
    return Sharpness(mean, low, high, level, "micro-batches", tuple(rises), loss, slope, kind, rho, ball, m, left_out)
