"""Products with the Hessian from gradients alone, the step that suits their noise, and a check of exact ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from fenland.diagnostics.flat import Flat
from fenland.diagnostics.objective import Objective
from fenland.diagnostics.preserve import displaced

STEPS, FACTOR = range(-2, 4), 4.0  # of the search, around the cube root of the rounding error
LARGE = 0.01  # relative difference of products that is said, where they are no coarser than this
SURE = 5  # how many times its own error a finite difference must be off to prove something

Products = Callable[[list[Tensor]], list[Tensor]]


def product(objective: Objective, flat: Flat, v: Tensor, step: float) -> Tensor:
    """(g(w + s*u) - g(w - s*u)) / (2*s) * |v| with u = v / |v| and s = `step` (unit of w): H v up to O(s^2)."""
    length = float(v.norm())
    if length == 0:
        return torch.zeros_like(v)
    ends: list[Tensor] = []
    for sign in (1.0, -1.0):
        with displaced(objective.params, flat.split(v * (sign * step / length))):
            _, gradient = objective.gradient()
        ends.append(flat.join(gradient))
    return (ends[0] - ends[1]) * (length / (2 * step))


def usual_step(flat: Flat) -> float:
    """The cube root of the parameters' rounding error, where errors of both kinds are alike if all scales are 1."""
    return float(flat.eps ** (1 / 3))


def choose_step(objective: Objective, flat: Flat) -> tuple[float, int]:
    """The step at which the products change least, and how many products it took to find it.

    Rounding (noise) in the gradients makes products wrong like 1 / s, curvature that changes on the way like s^2: where
    two neighbouring steps agree best, both are small. They are compared along H v for a random v, which leans towards
    the steepest modes, where curvature changes most.
    """
    usual = usual_step(flat)
    steep = product(objective, flat, flat.signs(torch.Generator().manual_seed(0)), usual)
    if not bool(torch.isfinite(steep).all()) or float(steep.norm()) == 0:
        return usual, 1
    steps = [usual * FACTOR**k for k in STEPS]
    found = [_or_none(objective, flat, steep, step) for step in steps]
    changes: list[tuple[float, float]] = []
    for (one, step), (two, _) in pairwise(zip(found, steps, strict=True)):
        if one is not None and two is not None:
            changes.append((float((one - two).norm()), step * FACTOR**0.5))
    return (min(changes)[1] if changes else usual), 1 + len(steps)


def _or_none(objective: Objective, flat: Flat, v: Tensor, step: float) -> Tensor | None:
    """The product, None where the loss or its gradient is not finite so far from w."""
    try:
        return product(objective, flat, v, step)
    except ValueError:
        return None


def say_where_cut(objective: Objective, make_exact: Callable[[Objective], Products]) -> bool:
    """Warn where exact products are none, and say whether: a custom backward or a hook can cut the graph of gradients.

    Looks at the first batch, in two ways. A product is set beside finite differences at two steps; it is off for sure
    where it differs from them by far more than they differ from each other (kinks, as of ReLU, make them differ: then
    they prove nothing). And u'Hv must be v'Hu, which holds with kinks too.

    Args:
        objective: entered, at w, before its own exact products keep a graph: that does not survive a change of w.
        make_exact: gives the exact products of an objective.
    """
    batch = objective.first()
    if batch is None:
        return False
    with objective.alone(batch) as alone:
        flat = Flat(alone)
        generator = torch.Generator().manual_seed(1)
        u, v = flat.signs(generator), flat.signs(generator)
        near, far = (_or_none(alone, flat, v, usual_step(flat) * factor) for factor in (1, 2))
        hu, hv = make_exact(alone)([u, v])
    bound = max(LARGE, 30 * flat.eps)
    skew = _relative(float((u @ hv - v @ hu).abs()), float(hu.norm() + hv.norm()))
    off = own = 0.0
    if near is not None and far is not None:
        scale = max(float(near.norm()), float(hv.norm()))
        off, own = _relative(float((near - hv).norm()), scale), _relative(float((near - far).norm()), scale)
    cure = 'a custom backward or a hook cuts the second derivative; pass hvp="difference", which needs gradients only'
    if off > max(bound, SURE * own):
        said = f"differ from finite differences of the gradient by {off:.1%}, which are exact to {own:.1%}"
    elif skew > bound:
        said = f"are not those of a symmetric matrix (u'Hv and v'Hu are {skew:.1%} apart)"
    else:
        return False
    warnings.warn(f"the exact products with the Hessian {said}: {cure}", UserWarning, stacklevel=2)
    return True


def _relative(difference: float, scale: float) -> float:
    return difference / scale if scale > 0 else 0.0
