"""A range test for rho: what the ascent does at each radius, on a few batches, and a proposal.

>>> found = fenland.find_rho(model, loss_fn, batches, optimizer)
>>> print(found); found.plot("rho.png")
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import torch
from torch import nn

from fenland.algebra import Lists, Vector
from fenland.arguments import check_between, check_number, check_whole
from fenland.diagnostics.climbing import Climber, compared
from fenland.diagnostics.finder_result import Mean, RhoPoint, RhoRange
from fenland.diagnostics.intervals import interval
from fenland.diagnostics.objective import LossFn, Mode, Objective
from fenland.diagnostics.preserve import displaced
from fenland.diagnostics.recipe import names_of, read
from fenland.rules import Ball

SHORTEST, LONGEST = 1e-3, 3.0  # |e|_2 at the ends of the default grid (unit of w)
BENT, TURNED, GOAL = 0.999, 0.5, 0.9  # cosine(g, h): still the same gradient; another one; what is proposed


def find_rho(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    rhos: Sequence[float] | None = None,
    ball: Ball | None = None,
    points: int = 25,
    limit: int = 8,
    level: float = 0.95,
    mode: Mode = "train",
    dtype: torch.dtype | None = None,
) -> RhoRange:
    """Measure loss rise, cosine(g, h) and gamma against rho on a few batches, and propose a radius to start from.

    At each radius every batch ascends by its own gradient, as it would in training. The proposal is the radius at which
    the cosine between the gradients at w + e and at w has fallen to 0.9. There the second gradient differs from the
    first, and still says something about w. The rule is ours; docs/choosing-rho.md compares it with others. Use it at
    weights that have trained for a while: at random weights the loss is flatter than it will be. Nothing is changed.

    Args:
        model: the module; it must not be sharded.
        loss_fn: a function of model and batch that returns the batch's mean loss, as in training.
        batches: a list of batches or a loader, of the size that you train with.
        optimizer: fenland's, whose ball and parameters are taken, or torch's, whose parameters are; None takes `ball`
            and all parameters.
        rhos: radii > 0 to try; None takes `points` from |e|_2 = 1e-3 to 3.
        ball: where there is no fenland optimizer; None is L2.
        points: length of the default grid.
        limit: batches that are used, the first ones.
        level: of the intervals.
        mode: see `Objective`.
        dtype: see `Objective`.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, no batch, or a loss that is not finite at w.
        ImportError: SciPy is missing (it has the quantiles of the intervals).
    """
    check_whole("points", points, 2)
    check_whole("limit", limit, 1)
    check_between("level", level, 0.5, 0.9999)
    if rhos is not None:
        if isinstance(rhos, (str, int, float)):
            raise TypeError(f"rhos = {rhos!r}: must be a list of numbers > 0, or None for a grid of `points`")
        rhos = list(rhos)
        for rho in rhos:
            check_number("rhos", rho, low=0.0)
        if not rhos or min(rhos) <= 0:
            raise ValueError(f"rhos = {rhos!r}: must be a non-empty list of numbers > 0")
    recipe = read(optimizer)
    if ball is not None and recipe.aware and recipe.ball != ball:
        raise ValueError(f"ball = {ball!r}: the optimizer has one, {recipe.ball!r}; give one of them")
    chosen = ball or recipe.ball
    names = None if optimizer is None else names_of(model, recipe)
    tried: list[list[_Sample]] = []
    radii = sorted(map(float, rhos)) if rhos is not None else []
    # The batches count alike, however many examples they hold.
    with Objective(model, loss_fn, batches, mode=mode, parameters=names, dtype=dtype, size=_one) as objective:
        for batch, _ in islice(objective.passes(), limit):
            # Each batch is its own objective, whose passes all start from the same buffers and random numbers.
            with objective.alone(batch) as alone:
                loss, g = alone.gradient()
                unit = Climber(alone, chosen).unit(g)
                radii = radii or _grid(float(Lists().norm(unit)), points)
                tried.append([_try(alone, rho, unit, loss, g) for rho in radii])
    if not tried:
        raise ValueError("batches: there is none in it; give at least one batch")
    curve = tuple(_point(rho, [row[i] for row in tried], level) for i, rho in enumerate(radii))
    return RhoRange(curve, *_proposed(curve), repr(chosen), len(tried), level)


@dataclass(frozen=True)
class _Sample:
    rise: float
    slope: float
    cosine: float
    gamma: float


def _one(_: Any) -> float:
    return 1.0


def _grid(length: float, points: int) -> list[float]:
    """Radii to three digits, evenly spaced in their logarithm; `length` is |e|_2 at rho = 1."""
    if not length > 0:
        raise ValueError("the gradient is zero: there is no direction to climb along")
    low, high = math.log10(SHORTEST / length), math.log10(LONGEST / length)
    return [float(f"{10 ** (low + (high - low) * i / (points - 1)):.3g}") for i in range(points)]


def _try(objective: Objective, rho: float, unit: Vector, loss: float, g: Vector) -> _Sample:
    """One batch at one radius; NaN where the loss breaks there."""
    e = [rho * u for u in unit]
    try:
        with displaced(objective.params, e):
            above, h = objective.gradient()
    except ValueError:
        return _Sample(math.nan, math.nan, math.nan, math.nan)
    _, _, cosine, gamma = compared(g, h)
    return _Sample(above - loss, float(Lists().dot(g, e)), cosine, gamma)


def _point(rho: float, samples: list[_Sample], level: float) -> RhoPoint:
    good = [s for s in samples if math.isfinite(s.rise) and math.isfinite(s.cosine)]
    share = len(good) / len(samples)
    if not good:
        none = Mean(math.nan, math.nan, math.nan)
        return RhoPoint(rho, none, math.nan, none, none, share)
    rise, cosine, gamma = (
        Mean(*interval([getattr(s, name) for s in good], level)) for name in ("rise", "cosine", "gamma")
    )
    return RhoPoint(rho, rise, sum(s.slope for s in good) / len(good), cosine, gamma, share)


def _proposed(curve: Sequence[RhoPoint]) -> tuple[float | None, float | None, float | None, str]:
    """The proposal, the range around it, and the reason."""
    low, goal, high = (_crossing(curve, level) for level in (BENT, GOAL, TURNED))
    if goal is None:
        if all(p.cosine.value > GOAL for p in curve if p.finite == 1):
            return None, low, None, f"The gradient has turned by less than cosine {GOAL} everywhere: try larger rhos."
        return None, None, high, f"The gradient has turned past cosine {GOAL} at the smallest radius: try smaller rhos."
    known = [p for p in curve if p.rho <= goal] or curve[:1]
    said = f"There cosine(g, h) falls to {GOAL} and the loss rises by about {known[-1].rise.value:.2g}."
    first = f"{low:.2g}" if low else "the smallest tried"
    last = f"{high:.2g}" if high else "the largest tried"
    return goal, low, high, f"{said} Of use: {first} to {last}, cosine {BENT} to {TURNED}."


def _crossing(curve: Sequence[RhoPoint], level: float) -> float | None:
    """Where the mean cosine first falls through `level`, between two radii by log-linear interpolation."""
    for one, two in pairwise(curve):
        a, b = one.cosine.value, two.cosine.value
        if a > level >= b:
            share = (a - level) / (a - b)
            return float(f"{math.exp(math.log(one.rho) + share * math.log(two.rho / one.rho)):.3g}")
    return None
