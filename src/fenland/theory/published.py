r"""What Kim et al., Stability Analysis of Sharpness-Aware Minimization, arXiv 2301.06308, prints, and where it holds.

One mode of eigenvalue l (loss / w^2), learning rate eta, batch B, radius rho of the unnormalised ascent, heavy ball m,
time t = eta * steps, from w = 0. The statements are here as a published summary of the paper prints them; each
docstring says with figures where a printed statement and the exact result part. Theorem 1 is `attracts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fenland.arguments import check_number
from fenland.theory.diffusion import OVERFLOW, Dynamics, displacement, drift, gap_series
from fenland.theory.momentum import check_base, check_positive


def attracts(eigenvalues: Sequence[float], rho: float, dynamics: Dynamics = "descent") -> bool:
    r"""Theorem 1: whether the flow w' = -grad L(w + rho*grad L(w)) is drawn to a critical point along every direction.

    The Hessian's eigenvalues l become l*(1 + rho*l) = l + rho*l^2, so with one negative eigenvalue l1 the saddle is an
    attractor iff rho > -1/l1, as printed. With several of them the weakest decides: rho > 1/min|l|, l < 0. Kim et al.
    prove the escape by another flow, whose drift is l*(1 + rho*l)^2 (Theorem 2, `published_displacement`): there,
    dynamics = "full", no saddle attracts, whatever rho is. So their two theorems are about two different dynamics, and
    SAM's is that of Theorem 1.

    Args:
        eigenvalues: of the Hessian at the critical point (loss / w^2).
        rho: radius of the unnormalised ascent (w per gradient).
        dynamics: "full" for the flow with the ascent's Jacobian; the others are SAM's, and alike.
    """
    if not len(eigenvalues):
        raise ValueError("eigenvalues: must not be empty")
    return all(drift(float(x), rho, dynamics) > 0 for x in eigenvalues)


def published_displacement(curvature: float, lr: float, rho: float, batch: float, time: float) -> float:
    r"""Theorem 2: eta*|l|/(2*B*l*(1+rho*l)^2) * (1 - exp(-2*l*(1+rho*l)^2*t)), "SAM's" MSD (unit w^2).

    It is exactly `diffusion` with dynamics = "full" and std^2 = |l|/B: the full gradient of L(w + rho*grad L(w)) under
    noise that the ascent leaves alone. No mini-batch step has that. SAM on a mini-batch has the drift l*(1 + rho*l) and
    noise times 1 + rho*l ("shared"); the full gradient on a mini-batch would have noise times (1 + rho*l)^2. At rho =
    0.2, l = -1, t = 1, eta/B = 0.0025 this gives 0.00507, where SAM has 0.00395 ("shared") or 0.00618 ("descent"). Its
    drift never changes sign, so that past rho = 1/|l| it grows without end (117 times SGD's at rho*|l| = 3, |l|*t = 1)
    where SAM is drawn back to the saddle (`attracts`) and has a stationary MSD. At rho = -1/l it is eta*|l|*t/B.

    Args:
        curvature: l, of either sign.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        batch: B.
        time: t = eta * steps.
    """
    check_positive("batch", batch)
    check_number("time", time, low=0.0)
    a = curvature * (1 + rho * curvature) ** 2
    noise = lr * abs(curvature) / batch
    if -2 * a * time > OVERFLOW:
        return math.inf
    return noise * time if a == 0 else -noise / (2 * a) * math.expm1(-2 * a * time)


def published_gap(curvature: float, lr: float, rho: float, batch: float, time: float) -> float:
    r"""Corollary 1: 2*eta*t^2*|l|^3*rho/B, SGD's MSD minus SAM's up to O(eta*t^3*l^4/B) where |l|*t << 1 (unit w^2).

    It is the t^2 term of Theorem 2's gap to first order in rho. Exactly that term is 2 + rho*l times eta*t^2*|l|^3*
    rho/B, so the printed remainder lacks eta*t^2*rho^2*l^4/B, which does not fade with t: at rho = 0.2, l = -1 the
    factor is 1.8. And it needs |l|*t << 1: at t = 1 there, eta/B = 0.0025, Theorem 2's gap is 0.0029 for 0.0010 here.

    For SAM itself the factor is 3 and a gap linear in t comes first ("shared" noise of a mini-batch), or 1 ("descent",
    "independent"); 2 belongs to the full gradient with noise that the ascent leaves alone: `gap_series`.

    Args:
        curvature: l, of either sign.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        batch: B.
        time: t = eta * steps.
    """
    return gap_series(curvature, lr, rho, batch, "full")[1] * time**2


def published_momentum(
    curvature: float,
    lr: float,
    rho: float,
    batch: float,
    momentum: float,
    time: float,
    inverted: bool = False,
) -> float:
    r"""Theorem 3, heavy ball m: C1*(1 - exp(-C2*(1-m)))^2/((1-m)^3*B) + C3*(1 - exp(-C4/(1-m)))/((1-m)*B) (unit w^2).

    C1 = eta^2*|l|/2, C2 = t/eta, C3 = eta*|l|/(2*l*(1+rho*l)^2), C4 = 2*l*(1+rho*l)^2*t.

    - The summary prints C2 = eta/t. That cannot be: the first term would be largest at t = 0, where nothing has moved.
      `inverted` gives it as printed. With t/eta, the number of steps, the term is that of a Langevin equation.
    - Even so its sign is wrong. From rest the transient of a free particle (l -> 0, m -> 1) is
      -C1*(1-E)*(3-E)/((1-m)^3*B), E = exp(-(1-m)*steps); +C1*(1-E)^2 is what a velocity in equilibrium at the start
      would add to it. So the printed MSD is too large: early without bound, late by (2*s + 1)/(2*s - 3), where s =
      (1-m)*steps: 3.1 at s = 2, 1.11 at 20.
    - A mode that contracts ends too high by the factor 1 + eta*l/(1-m)^2, nearly: 2.0 where that is 1.
    - At a saddle its rate |l|/(1-m) is right for eta*|l| << (1-m)^2 alone; the exact one is smaller, and the ratio
      grows exponentially. `momentum_ratio` is the map: it needs eta*|l| << (1-m)^2 and steps >> 1/(1-m).

    Like Theorem 2 it has the drift of the full gradient; with rho = 0 it is SGD's.

    Args:
        curvature: l, of either sign, not 0.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient), rho*l not -1.
        batch: B.
        momentum: m in [0, 1).
        time: t = eta * steps.
        inverted: C2 = eta/t, as printed.
    """
    check_base(momentum, False, 0.0)
    check_positive("batch", batch)
    check_positive("lr", lr)
    check_number("time", time, low=0.0)
    a, free = drift(curvature, rho, "full"), 1 - momentum
    if a == 0:
        raise ValueError(f"curvature = {curvature!r}, rho = {rho!r}: Theorem 3 divides by l*(1 + rho*l)^2, which is 0")
    exponent = (lr / time if time else math.inf) if inverted else time / lr
    transient = lr**2 * abs(curvature) / 2 * math.expm1(-exponent * free) ** 2 / free**3
    growth = -2 * a * time / free
    if growth > OVERFLOW:
        return math.inf
    spread = -lr * abs(curvature) / (2 * a) * math.expm1(growth) / free
    return (transient + spread) / batch


def momentum_ratio(scaled: float, reach: float, momentum: float, sign: int = -1) -> float:
    r"""Theorem 3 over the exact MSD of heavy ball from rest, no ascent (no unit); 1 where the theorem holds.

    Both are proportional to eta*|l|/B, so that in units of the learning rate three numbers are left.

    Args:
        scaled: eta*|l|/(1-m)^2 > 0.
        reach: (1-m)*steps; the number of steps is rounded, and at least 1.
        momentum: m in [0, 1).
        sign: of l: -1 at a saddle, 1 for a mode that contracts (eta*l < 2*(1+m)).
    """
    for name, value in (("scaled", scaled), ("reach", reach)):
        check_positive(name, value)
    check_base(momentum, False, 0.0)
    if sign not in (-1, 1):
        raise ValueError(f"sign = {sign!r}: must be -1 or 1")
    curvature, steps = sign * scaled * (1 - momentum) ** 2, max(1, round(reach / (1 - momentum)))  # eta = 1
    printed = published_momentum(curvature, 1.0, 0.0, 1.0, momentum, float(steps))
    if math.isinf(printed):
        return math.inf
    return printed / displacement(curvature, 1.0, 0.0, math.sqrt(abs(curvature)), steps, "full", momentum=momentum)
