"""gamma = ||g||/||h||, by which SSAM multiplies SAM's gradient: what bounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fenland.arguments import check_number
from fenland.theory.momentum import check_positive


def gamma_bounds(eigenvalues: Sequence[float], rho: float) -> tuple[float, float]:
    r"""Bounds of gamma on a quadratic, unnormalised ascent: [1/max|1 + rho*l|, 1/min|1 + rho*l|] (no unit).

    h = (I + rho*H) g, whose stretch of any g lies between the least and the largest |1 + rho*l|; the length of g does
    not matter. Both bounds are met, by g along one eigenvector. The upper one is infinite where rho*l = -1 for some l.
    At gradient norm ||g|| the normalised ascent has these bounds with rho/||g|| in place of rho. Derived.
    """
    if not len(eigenvalues):
        raise ValueError("eigenvalues: must not be empty")
    check_number("rho", rho, low=0.0)
    for x in eigenvalues:
        check_number("eigenvalues", float(x))
    stretches = [abs(1 + rho * x) for x in eigenvalues]
    return 1 / max(stretches) if max(stretches) else math.inf, 1 / min(stretches) if min(stretches) else math.inf


def gamma_normalized(distance: float, rho: float) -> float:
    r"""gamma = |w| / (|w| + rho) for the normalised ascent in one mode l > 0: it vanishes at the minimum. Derived."""
    check_number("distance", distance, low=0.0)
    check_number("rho", rho, low=0.0)
    if distance + rho == 0:
        raise ValueError("distance = 0 with rho = 0: there is no ascent and no gradient; one of them must be > 0")
    return distance / (distance + rho)


def gamma_smooth(
    smoothness: float, rho: float, grad_norm: float | None = None, convexity: float | None = None
) -> tuple[float, float]:
    r"""Bounds of gamma for any f with a beta-Lipschitz gradient (no unit).

    ||h - g|| <= beta*||e||, so with r = rho (unnormalised, ||e|| = rho*||g||) or r = rho/||g|| (normalised)

        1/(1 + r*beta) <= gamma <= 1/(1 - r*beta),   no upper bound where r*beta >= 1

    so under the normalised ascent gamma >= ||g||/(||g|| + rho*beta). Where <h - g, e> >= mu*||e||^2 (mu-strongly
    convex; mu = 0 convex), <h, g> >= (1 + r*mu)*||g||^2 and the upper bound is 1/(1 + r*mu) <= 1: on convex losses SSAM
    never lengthens a step of SAM. Derived.

    Args:
        smoothness: beta > 0 (loss / w^2), the largest |Hessian eigenvalue|.
        rho: radius.
        grad_norm: ||g|| > 0 for the normalised ascent; None for the unnormalised one.
        convexity: mu, the least Hessian eigenvalue where it is >= 0; None where nothing is known.
    """
    check_positive("smoothness", smoothness)
    check_number("rho", rho, low=0.0)
    r = rho
    if grad_norm is not None:
        check_positive("grad_norm", grad_norm)
        r = rho / grad_norm
    if convexity is not None:
        check_number("convexity", convexity, 0.0, smoothness)
        return 1 / (1 + r * smoothness), 1 / (1 + r * convexity)
    return 1 / (1 + r * smoothness), 1 / (1 - r * smoothness) if r * smoothness < 1 else math.inf
