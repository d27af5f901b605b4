"""Gradient noise in one mode of a quadratic: how far unnormalised SAM and SGD wander, exactly and as a diffusion.

The noise xi of a step's gradient has standard deviation std (loss / w; a batch of B samples has std / sqrt(B)). What
SAM's two passes make of curvature and noise is one of four models, `DYNAMICS`:

- "shared" draws xi once a step, as one mini-batch does; "independent" draws it for each pass; "descent" ascends
  exactly. All three drop the Jacobian of the ascent, as SAM does: the drift is l*(1 + rho*l).
- "full" is the full gradient of L(w + rho*grad L(w)), Jacobian included, with noise that the ascent does not touch:
  the drift is l*(1 + rho*l)^2. No optimizer steps so; it is the model of Kim et al. (`fenland.theory.published`).

Expectations of w^2 are mean squared displacements (MSD, unit w^2). Everything is derived here.
"""

from __future__ import annotations

import math
from typing import Literal

from fenland.arguments import check_among, check_number, check_whole
from fenland.theory.momentum import check_positive, companion, drive, reach

Dynamics = Literal["shared", "independent", "descent", "full"]
DYNAMICS = ("shared", "independent", "descent", "full")
POWERS = {"shared": (1, 2), "independent": (1, 0), "descent": (1, 0), "full": (2, 0)}  # of drift, noise: `gap_series`
OVERFLOW = 700.0  # of an exponent
Square = tuple[float, float, float, float]  # a 2x2 matrix, row by row


def noise_power(curvature: float, rho: float, dynamics: Dynamics) -> float:
    r"""c^2, by which the variance of gradient noise is multiplied in a step.

    With xi in both gradients ("shared", as one mini-batch gives): h = l*(w + rho*(l*w + xi)) + xi, c = 1 + rho*l. With
    an independent draw in each: c^2 = 1 + (rho*l)^2. With noise at the ascent point alone ("descent") or added to the
    full gradient ("full"): c = 1. Derived.
    """
    check_among("dynamics", dynamics, DYNAMICS)
    shared, independent = (1 + rho * curvature) ** 2, 1 + (rho * curvature) ** 2
    return {"shared": shared, "independent": independent}.get(dynamics, 1.0)


def drift(curvature: float, rho: float, dynamics: Dynamics) -> float:
    r"""a of E[d] = a*w (loss / w^2): USAM's l*(1 + rho*l); l*(1 + rho*l)^2 for the full gradient.

    L(w + rho*grad L(w)) = l*(1 + rho*l)^2*w^2/2 in one mode, whose sign is that of l whatever rho is: the full gradient
    holds at no saddle, where SAM without the Jacobian is drawn to it once rho*|l| > 1 (`captures`). Derived.
    """
    check_among("dynamics", dynamics, DYNAMICS)
    return drive(curvature, rho) * (1 + rho * curvature if dynamics == "full" else 1)


def displacement(
    curvature: float,
    lr: float,
    rho: float,
    std: float,
    steps: int,
    dynamics: Dynamics = "shared",
    start: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    r"""E[w_t^2] of one mode after t steps of USAM with gradient noise, exact for discrete steps (unit w^2).

        z_{t+1} = M z_t + b*c*xi,  z = (w, v),   E[z_t z_t^T] = M^t z_0 z_0^T (M^t)^T + c^2*std^2*P_t
        P_{s+t} = P_s + M^s P_t (M^s)^T,  P_1 = b b^T

    with `momentum.companion` M, b = (-eta, 1) or (-eta*(1+mu), 1) for Nesterov, v_0 = 0; P_t is found by doubling, so
    the cost is log(t). Without momentum it is

        E[w_t^2] = q^(2t) * start^2 + eta^2 * std^2 * c^2 * (1 - q^(2t)) / (1 - q^2)

    and eta^2*std^2*c^2*t where q = 1. rho = 0 is SGD; past float64 it is inf. Derived; c^2 is `noise_power`.

    Args:
        curvature: l, negative at a saddle.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        std: of a step's gradient noise.
        steps: t.
        dynamics: which passes see which draw, and the Jacobian.
        start: w_0.
        momentum: mu in [0, 1).
        nesterov: as in torch.optim.SGD.
    """
    check_whole("steps", steps, 0)
    check_number("std", std, low=0.0)
    power, spread = _moments(drift(curvature, rho, dynamics), lr, momentum, nesterov, steps)
    carried = power[0] * start if start else 0.0
    found = carried * carried + (noise_power(curvature, rho, dynamics) * std * std * spread[0] if std else 0.0)
    return math.inf if math.isnan(found) else found  # of sums of both signs past float64, as only growth makes them


def stationary_displacement(
    curvature: float, lr: float, rho: float, std: float, dynamics: Dynamics = "shared", momentum: float = 0.0
) -> float:
    r"""E[w^2] in the long run of a mode that contracts, heavy ball (unit w^2).

        eta^2*std^2*c^2*(1 + mu) / ((1 - mu) * x * (2*(1 + mu) - x)),   x = eta*a,  a of `drift`

    w_{t+1} = (1 + mu - x)*w_t - mu*w_{t-1} - eta*c*xi is an AR(2) process, of which this is the variance. Derived.
    """
    x = lr * drift(curvature, rho, dynamics)
    top = reach(momentum)
    if not 0 < x < top:
        raise ValueError(f"lr * drive = {x:.6g}: must lie in (0, {top:.6g}); otherwise there is no stationary state")
    kick = (lr * std) ** 2 * noise_power(curvature, rho, dynamics)
    return kick * (1 + momentum) / ((1 - momentum) * x * (top - x))


def diffusion(
    curvature: float,
    lr: float,
    rho: float,
    std: float,
    time: float,
    dynamics: Dynamics = "shared",
    momentum: float = 0.0,
) -> float:
    r"""E[w^2] at continuous time tau = eta*t from w = 0, the limit of small steps (unit w^2).

        (D/a) * (1 - exp(-2*a*tau)),   a of `drift`,   D = eta*std^2*c^2/2;   2*D*tau where a = 0

    the Ornstein-Uhlenbeck process dw = -a*w*dtau + sqrt(2*D)*dB; at a saddle a < 0 and it grows. With momentum, for
    times beyond 1/(1 - mu) steps, tau and D both grow by 1/(1 - mu): momentum acts as that much more learning rate.
    Derived.
    """
    check_number("momentum", momentum, low=0.0)
    check_number("time", time, low=0.0)
    if momentum >= 1:
        raise ValueError(f"momentum = {momentum!r}: must lie in [0, 1)")
    gain = 1 / (1 - momentum)
    strength = gain * lr * std**2 * noise_power(curvature, rho, dynamics) / 2
    return _spread(drift(curvature, rho, dynamics), strength, gain * time)


def displacement_gap(
    curvature: float, lr: float, rho: float, batch: float, time: float, dynamics: Dynamics = "shared"
) -> float:
    r"""MSD of SGD minus that of USAM at tau = eta*t, from w = 0, where a sample's gradient has variance |l| (unit w^2).

    Exactly `diffusion` for rho = 0 minus `diffusion` for rho, std^2 = |l|/B. `gap_series` names its leading terms.
    """
    check_positive("batch", batch)
    std = math.sqrt(abs(curvature) / batch)
    still, moved = (diffusion(curvature, lr, radius, std, time, dynamics) for radius in (0.0, rho))
    if math.isinf(still) and math.isinf(moved):  # the one whose mode grows faster is ahead without end
        ahead = drift(curvature, rho, dynamics) - drift(curvature, 0.0, dynamics)
        return math.copysign(math.inf, ahead) if ahead else 0.0
    return still - moved


def gap_series(
    curvature: float, lr: float, rho: float, batch: float, dynamics: Dynamics = "shared"
) -> tuple[float, float]:
    r"""(g1, g2) of `displacement_gap` = g1*tau + g2*tau^2 + O(tau^3) + O(rho^2); g1: w^2/time, g2: w^2/time^2.

    MSD = 2*D*tau - 2*D*a*tau^2 + ..., with a = l*(1 + j*rho*l), D = (eta*|l|/(2*B)) * (1 + k*rho*l) to first order. So

        g1 = -k*eta*rho*l*|l|/B,       g2 = (j + k)*eta*rho*|l|*l^2/B = (j + k)*eta*rho*|l|^3/B

    with (j, k) = (1, 2) for "shared", (1, 0) for "independent" and "descent", (2, 0) for "full". At a saddle neither is
    < 0, so SAM wanders less in every model. Derived.
    """
    check_among("dynamics", dynamics, DYNAMICS)
    check_positive("batch", batch)
    of_drift, of_noise = POWERS[dynamics]
    unit = lr * rho * abs(curvature) / batch
    return -of_noise * unit * curvature, (of_drift + of_noise) * unit * curvature**2


def _spread(a: float, strength: float, time: float) -> float:
    """(D/a)*(1 - exp(-2*a*time)), and its limit 2*D*time."""
    if a == 0 or strength == 0:
        return 2 * strength * time
    return math.inf if -2 * a * time > OVERFLOW else -strength / a * math.expm1(-2 * a * time)


def _moments(a: float, lr: float, momentum: float, nesterov: bool, steps: int) -> tuple[Square, Square]:
    """(M^steps, P_steps) by doubling along the binary digits of `steps`."""
    (p, q), (r, s) = companion(a, lr, momentum, nesterov)
    one: Square = (p, q, r, s)
    push = -lr * (1 + momentum) if nesterov else -lr
    kick: Square = (push * push, push, push, 1.0)
    power: Square = (1.0, 0.0, 0.0, 1.0)
    spread: Square = (0.0, 0.0, 0.0, 0.0)
    for digit in bin(steps)[2:]:
        spread = _sum(spread, _carried(power, spread))
        power = _product(power, power)
        if digit == "1":
            spread = _sum(kick, _carried(one, spread))
            power = _product(one, power)
    return power, spread


def _product(a: Square, b: Square) -> Square:
    return (
        a[0] * b[0] + a[1] * b[2],
        a[0] * b[1] + a[1] * b[3],
        a[2] * b[0] + a[3] * b[2],
        a[2] * b[1] + a[3] * b[3],
    )


def _carried(m: Square, p: Square) -> Square:
    """M P M^T."""
    return _product(_product(m, p), (m[0], m[2], m[1], m[3]))


def _sum(a: Square, b: Square) -> Square:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])
