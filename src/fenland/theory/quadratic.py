"""Sharpness-aware steps on quadratics, in closed form: no momentum, exact gradients unless noise is named.

One mode of curvature l (unit: loss / w^2; negative at a saddle), learning rate eta (w per gradient) and radius rho (w
for the normalised ascent, w per gradient for the unnormalised one). Everything here is derived in its docstring; tests
set each formula beside replicas that are stepped by the optimizer's own rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from fenland.arguments import check_among, check_number

Noise = Literal["shared", "independent", "descent"]
METHODS = ("SGD", "USAM", "SSAM-U")


def factor(curvature: float, lr: float, rho: float = 0.0, method: str = "USAM") -> float:
    r"""q of w_{t+1} = q * w_t in one mode.

    SGD: q = 1 - eta*l. USAM: h = l*(w + rho*l*w), so q = 1 - eta*l*(1 + rho*l). SSAM-U on a single mode:
    d = h*|g|/|h| = l*w*sign(1 + rho*l), so q = 1 - eta*l*sign(1 + rho*l): SGD's, as long as rho*l > -1. Derived.

    Args:
        curvature: l.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        method: "SGD", "USAM" or "SSAM-U".
    """
    check_among("method", method, METHODS)
    stretch = 1 + rho * curvature
    if method == "SGD":
        stretch = 1.0
    elif method == "SSAM-U":
        stretch = math.copysign(1.0, stretch) if stretch else 1.0  # h = 0: gamma is 1 and d = 0, which 1 only bounds
    return 1 - lr * curvature * stretch


def stable_lr(curvature: float, rho: float = 0.0, method: str = "USAM") -> float:
    r"""The learning rate below which a mode l > 0 contracts, |q| < 1.

    SGD: 2/l. USAM: 2/(l*(1 + rho*l)), since eta*l*(1 + rho*l) < 2. SSAM-U: 2/l, the renormalised step of a single mode
    being SGD's. With several modes the largest l decides for SGD and USAM; for SSAM-U it is an observation that 2/l
    holds near the limit, where that mode alone is left. Derived; source of the question: arXiv 2401.07250.
    """
    _check_positive("curvature", curvature)
    check_number("rho", rho, low=0.0)
    check_among("method", method, METHODS)
    return 2 / curvature if method != "USAM" else 2 / (curvature * (1 + rho * curvature))


def cycle_amplitude(curvature: float, lr: float, rho: float) -> float:
    r"""A = eta*l*rho / (2 - eta*l): SAM's final distance from the minimum of one mode (unit of w).

    The normalised ascent never ends: d = l*(w + rho*sign(w)), and w -> -w is a cycle where A*(2 - eta*l) = eta*l*rho.
    It attracts for 0 < eta*l < 2 (multiplier (1 - eta*l)^2 over two steps). Normalised SSAM has |d| = |g| and reaches
    the minimum instead. Derived.
    """
    _check_positive("curvature", curvature)
    if not 0 < lr * curvature < 2:
        raise ValueError(
            f"lr = {lr!r}: must lie in (0, 2/curvature) = (0, {2 / curvature:.6g}); beyond there is no cycle"
        )
    return lr * curvature * rho / (2 - lr * curvature)


def gamma_bounds(eigenvalues: Sequence[float], rho: float) -> tuple[float, float]:
    r"""Bounds of gamma = ||g||/||h|| for the unnormalised ascent, [1/max|1 + rho*l|, 1/min|1 + rho*l|] (no unit).

    h = (I + rho*H) g, whose stretch of any g lies between the least and the largest |1 + rho*l|; the length of g does
    not matter. The upper bound is infinite where rho*l = -1 for some l. Derived.
    """
    if not eigenvalues:
        raise ValueError("eigenvalues: must not be empty")
    stretches = [abs(1 + rho * x) for x in eigenvalues]
    return 1 / max(stretches) if max(stretches) else math.inf, 1 / min(stretches) if min(stretches) else math.inf


def gamma_normalized(distance: float, rho: float) -> float:
    r"""gamma = |w| / (|w| + rho) for the normalised ascent in one mode l > 0: it vanishes at the minimum. Derived."""
    return distance / (distance + rho)


def captures(strength: float, rho: float) -> bool:
    r"""Whether a saddle with eigenvalue -m holds unnormalised SAM along it: rho*m > 1.

    The flow w' = m*(1 - rho*m)*w turns from repulsion to attraction there. Renormalising scales d and flips no
    direction, so SSAM-U is held alike. Derived.

    Args:
        strength: m > 0 (loss / w^2).
        rho: radius of the unnormalised ascent (w per gradient).
    """
    _check_positive("strength", strength)
    return rho * strength > 1


def capturing_gradient(strength: float, rho: float) -> float:
    r"""||g|| = rho*m, below which the normalised ascent is drawn to a saddle of eigenvalue -m (unit: loss / w).

    Along that direction h = -m*w*(1 - rho*m/||g||), whose sign turns at ||g|| = rho*m: close enough to a saddle SAM is
    always drawn in, whatever rho is. Derived.
    """
    _check_positive("strength", strength)
    return rho * strength


def escape_steps(strength: float, lr: float, start: float, end: float, rho: float = 0.0, method: str = "USAM") -> float:
    r"""Steps from |w| = start to end along a direction of eigenvalue -m: log(end/start) / log(q); inf where held.

    USAM needs 1/(1 - rho*m) times as many as SGD in the limit of small steps. SSAM-U in a single mode escapes like SGD;
    stable directions beside it share ||g|| and slow it down. Derived.
    """
    _check_positive("strength", strength)
    _check_positive("start", start)
    q = factor(-strength, lr, rho, method)
    return math.log(end / start) / math.log(q) if q > 1 else math.inf


def noise_power(curvature: float, rho: float, noise: Noise) -> float:
    r"""c^2, by which the variance of gradient noise is multiplied in USAM's step.

    With xi in both gradients ("shared", as one mini-batch gives): h = l*(w + rho*(l*w + xi)) + xi, c = 1 + rho*l. With
    an independent draw in each: c^2 = 1 + (rho*l)^2. With noise at the ascent point alone ("descent"): c = 1. Derived.
    """
    check_among("noise", noise, ("shared", "independent", "descent"))
    return {"shared": (1 + rho * curvature) ** 2, "independent": 1 + (rho * curvature) ** 2, "descent": 1.0}[noise]


def displacement(
    curvature: float, lr: float, rho: float, std: float, steps: int, noise: Noise = "shared", start: float = 0.0
) -> float:
    r"""E[w_t^2] of one mode after t steps of USAM with gradient noise, exact for discrete steps (unit w^2).

        w_{t+1} = q*w_t - eta*c*xi,   E[w_t^2] = q^(2t) * start^2 + eta^2 * std^2 * c^2 * (1 - q^(2t)) / (1 - q^2)

    and eta^2*std^2*c^2*t where q = 1; rho = 0 is SGD. For small steps, a = l*(1 + rho*l), this is the diffusion's
    (D/a)*(1 - exp(-2*a*tau)) with tau = eta*t and D = eta*std^2*c^2/2. Derived; c^2 is `noise_power`.
    """
    q2 = factor(curvature, lr, rho) ** 2
    kick = (lr * std) ** 2 * noise_power(curvature, rho, noise)
    grown = q2**steps
    return grown * start**2 + kick * (steps if q2 == 1 else (1 - grown) / (1 - q2))


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value!r}: must be finite and > 0")
