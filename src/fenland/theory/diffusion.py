"""Gradient noise in one mode of a quadratic: how far unnormalised SAM and SGD wander, exactly and as a diffusion.

The noise xi of a step's gradient has standard deviation std (loss / w; a batch of B samples has std / sqrt(B)). What
SAM's two passes make of it is one of three models: "shared" draws xi once a step, as one mini-batch does; "independent"
draws it for each pass; "descent" ascends exactly. Expectations of w^2 are mean squared displacements (MSD, unit w^2).
Source of the question: Kim et al. 2023, arXiv 2301.06308, whose full text was not at hand; everything is derived here.
"""

from __future__ import annotations

import math
from typing import Literal

from fenland.arguments import check_among, check_number, check_whole
from fenland.theory.momentum import check_positive, companion, drive, reach

Noise = Literal["shared", "independent", "descent"]
NOISES = ("shared", "independent", "descent")
Square = tuple[float, float, float, float]  # a 2x2 matrix, row by row


def noise_power(curvature: float, rho: float, noise: Noise) -> float:
    r"""c^2, by which the variance of gradient noise is multiplied in USAM's step.

    With xi in both gradients ("shared", as one mini-batch gives): h = l*(w + rho*(l*w + xi)) + xi, c = 1 + rho*l. With
    an independent draw in each: c^2 = 1 + (rho*l)^2. With noise at the ascent point alone ("descent"): c = 1. Derived.
    """
    check_among("noise", noise, NOISES)
    return {"shared": (1 + rho * curvature) ** 2, "independent": 1 + (rho * curvature) ** 2, "descent": 1.0}[noise]


def displacement(
    curvature: float,
    lr: float,
    rho: float,
    std: float,
    steps: int,
    noise: Noise = "shared",
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

    and eta^2*std^2*c^2*t where q = 1. rho = 0 is SGD. Derived; c^2 is `noise_power`.

    Args:
        curvature: l, negative at a saddle.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        std: of a step's gradient noise.
        steps: t.
        noise: which passes see which draw.
        start: w_0.
        momentum: mu in [0, 1).
        nesterov: as in torch.optim.SGD.
    """
    check_whole("steps", steps, 0)
    check_number("std", std, low=0.0)
    power, spread = _moments(drive(curvature, rho), lr, momentum, nesterov, steps)
    return (power[0] * start) ** 2 + noise_power(curvature, rho, noise) * std**2 * spread[0]


def stationary_displacement(
    curvature: float, lr: float, rho: float, std: float, noise: Noise = "shared", momentum: float = 0.0
) -> float:
    r"""E[w^2] in the long run of a mode that contracts, heavy ball (unit w^2).

        eta^2*std^2*c^2*(1 + mu) / ((1 - mu) * x * (2*(1 + mu) - x)),   x = eta*a,  a = l*(1 + rho*l)

    w_{t+1} = (1 + mu - x)*w_t - mu*w_{t-1} - eta*c*xi is an AR(2) process, of which this is the variance. Derived.
    """
    x = lr * drive(curvature, rho)
    top = reach(momentum)
    if not 0 < x < top:
        raise ValueError(f"lr * drive = {x:.6g}: must lie in (0, {top:.6g}); otherwise there is no stationary state")
    kick = (lr * std) ** 2 * noise_power(curvature, rho, noise)
    return kick * (1 + momentum) / ((1 - momentum) * x * (top - x))


def diffusion(
    curvature: float, lr: float, rho: float, std: float, time: float, noise: Noise = "shared", momentum: float = 0.0
) -> float:
    r"""E[w^2] at continuous time tau = eta*t from w = 0, the limit of small steps (unit w^2).

        (D/a) * (1 - exp(-2*a*tau)),   a = l*(1 + rho*l),   D = eta*std^2*c^2/2;   2*D*tau where a = 0

    the Ornstein-Uhlenbeck process dw = -a*w*dtau + sqrt(2*D)*dB; at a saddle a < 0 and it grows. With momentum, for
    times beyond 1/(1 - mu) steps, tau and D both grow by 1/(1 - mu): momentum acts as that much more learning rate.
    Derived.
    """
    check_number("momentum", momentum, low=0.0)
    check_number("time", time, low=0.0)
    if momentum >= 1:
        raise ValueError(f"momentum = {momentum!r}: must lie in [0, 1)")
    gain = 1 / (1 - momentum)
    strength = gain * lr * std**2 * noise_power(curvature, rho, noise) / 2
    return _spread(drive(curvature, rho), strength, gain * time)


def displacement_gap(
    curvature: float, lr: float, rho: float, batch: float, time: float, noise: Noise = "shared"
) -> float:
    r"""MSD of SGD minus that of USAM at tau = eta*t, from w = 0, where a sample's gradient has variance |l| (unit w^2).

    Exactly `diffusion` for rho = 0 minus `diffusion` for rho, std^2 = |l|/B. `gap_series` names its leading terms.
    """
    check_positive("batch", batch)
    std = math.sqrt(abs(curvature) / batch)
    still = diffusion(curvature, lr, 0.0, std, time, noise)
    return still - diffusion(curvature, lr, rho, std, time, noise)


def gap_series(curvature: float, lr: float, rho: float, batch: float, noise: Noise = "shared") -> tuple[float, float]:
    r"""(g1, g2) of `displacement_gap` = g1*tau + g2*tau^2 + O(tau^3) + O(rho^2); g1: w^2/time, g2: w^2/time^2.

    MSD = 2*D*tau - 2*D*a*tau^2 + ..., with a = l*(1 + rho*l), D = (eta*|l|/(2*B)) * (1 + k*rho*l) to first order. So

        g1 = -k*eta*rho*l*|l|/B,       g2 = (1 + k)*eta*rho*|l|*l^2/B = (1 + k)*eta*rho*|l|^3/B

    where c^2 = 1 + k*rho*l + O(rho^2): k = 2 for "shared", 0 for "independent" and "descent". Both are > 0 at a saddle
    for k = 2, so SAM wanders less in every model. Derived.
    """
    check_among("noise", noise, NOISES)
    return _series(curvature, lr, rho, batch, 2 if noise == "shared" else 0)


def published_gap(curvature: float, lr: float, rho: float, batch: float, time: float) -> float:
    r"""2*eta*tau^2*|l|^3*rho/B: by how much SAM's MSD falls short of SGD's, as published (unit w^2).

    Source: Kim et al. 2023, arXiv 2301.06308, by a summary; its full text could not be checked. Beside `gap_series`:
    the factor 2 asks for k = 1, D = eta*|a|/(2*B), that is for noise whose variance follows SAM's own curvature
    a = l*(1 + rho*l) as it follows |l| for SGD. No noise model of real batches gives it: one mini-batch in both passes
    has factor 3, independent or ascent-free noise 1; k = 1 also brings a term in tau that this lacks (`gap_series`
    with k = 1 would be eta*rho*l^2*tau/B at a saddle).
    """
    check_positive("batch", batch)
    return _series(curvature, lr, rho, batch, 1)[1] * time**2


def _series(curvature: float, lr: float, rho: float, batch: float, k: int) -> tuple[float, float]:
    unit = lr * rho * abs(curvature) / batch
    return -k * unit * curvature, (1 + k) * unit * curvature**2


def _spread(a: float, strength: float, time: float) -> float:
    """(D/a)*(1 - exp(-2*a*time)), and its limit 2*D*time."""
    return 2 * strength * time if a == 0 else -strength / a * math.expm1(-2 * a * time)


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
