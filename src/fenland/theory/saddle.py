"""Saddles, in closed form: when sharpness-aware steps are held at one, from how far, and how long leaving it takes.

A direction of eigenvalue -m (m > 0, loss / w^2) leads away from the saddle; directions of positive eigenvalue lead back
to it. Learning rate eta (w per gradient), radius rho (w for the normalised ascent, w per gradient for the unnormalised
one). Source of the questions: Kim et al., arXiv 2301.06308, whose theorems are in `published`; all is derived here.
"""

from __future__ import annotations

import math

from fenland.arguments import check_number
from fenland.theory.momentum import check_positive, drive, growth, roots


def captures(strength: float, rho: float) -> bool:
    r"""Whether a saddle with eigenvalue -m holds unnormalised SAM along it: rho*m > 1, Theorem 1 of Kim et al.

    The flow w' = m*(1 - rho*m)*w turns from repulsion to attraction there, wherever w is. Renormalising scales d and
    flips no direction, so SSAM-U is held alike; momentum moves no fixed point and no sign either. Derived.

    Args:
        strength: m > 0 (loss / w^2).
        rho: radius of the unnormalised ascent (w per gradient).
    """
    check_positive("strength", strength)
    return rho * strength > 1


def capturing_gradient(strength: float, rho: float) -> float:
    r"""||g|| = rho*m, below which the normalised ascent is drawn to a saddle of eigenvalue -m (unit: loss / w).

    Along that direction h = -m*w*(1 - rho*m/||g||), whose sign turns at ||g|| = rho*m: close enough to a saddle SAM is
    always drawn in, whatever rho is. SSAM's d has h's direction and is drawn in alike. Derived.
    """
    check_positive("strength", strength)
    return rho * strength


def capture_radius(rho: float) -> float:
    r"""|w| = rho (unit of w): the normalised ascent is drawn to a saddle from nearer along its descending direction.

    With nothing left in other directions ||g|| = m*|w|, so ||g|| < rho*m is |w| < rho, whatever m is. Each other
    direction of eigenvalue l adds (l*w_l)^2 to ||g||^2: the set of capture is the ellipsoid ||g|| < rho*m. Derived.
    """
    check_number("rho", rho, low=0.0)
    return rho


def capture_band(strength: float, lr: float, rho: float) -> float:
    r"""eta*m*rho (unit of w): SAM that a saddle has drawn in wanders in |w| <= eta*m*rho, no momentum, eta*m < 1.

    Inside the radius w' = (1 + eta*m)*w - eta*m*rho*sign(w): each step is pulled to the saddle by eta*m*(rho - |w|) and
    jumps over it. It never settles (two steps multiply a deviation by (1 + eta*m)^2), but for |w| <= eta*m*rho it gives
    |w'| <= eta*m*rho again. Past eta*m = 1 the jump reaches beyond the radius and SAM gets out. Normalised SSAM has
    |d| = |g| there and converges to the saddle instead. Derived.
    """
    check_positive("strength", strength)
    check_number("rho", rho, low=0.0)
    if not 0 < lr * strength < 1:
        raise ValueError(f"lr = {lr!r}: must lie in (0, 1/strength) = (0, {1 / strength:.6g}); beyond SAM gets out")
    return lr * strength * rho


def held_beside(strength: float, curvature: float, lr: float) -> bool:
    r"""Whether normalised SAM stays captured beside a direction of positive curvature l: eta*l^2/(2 - eta*l) < m.

    That direction never comes to rest: its cycle (`quadratic.cycle_amplitude`) keeps ||g|| = eta*l^2*rho/(2 - eta*l),
    and the saddle holds w only where ||g|| < rho*m. So a steep direction at a large learning rate frees SAM from a
    saddle, whatever rho is. Derived for one such direction, w near the saddle in the descending one, no momentum.

    Args:
        strength: m > 0 (loss / w^2).
        curvature: l > 0, that of the direction whose cycle has the largest gradient.
        lr: eta < 2/l.
    """
    check_positive("strength", strength)
    check_positive("curvature", curvature)
    if not 0 < lr * curvature < 2:
        raise ValueError(f"lr = {lr!r}: must lie in (0, 2/curvature) = (0, {2 / curvature:.6g})")
    return lr * curvature**2 / (2 - lr * curvature) < strength


def escape_steps(
    strength: float,
    lr: float,
    start: float,
    end: float,
    rho: float = 0.0,
    method: str = "USAM",
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    r"""Steps from |w| = start (v = 0) to end along a direction of eigenvalue -m, real-valued; inf where held.

    Without momentum log(end/start) / log(1 + eta*m*(1 - rho*m)): USAM needs 1/(1 - rho*m) times as many as SGD in the
    limit of small steps. SSAM-U in a single mode escapes like SGD; stable directions beside it share ||g|| and slow it
    down. With momentum w_t = c1*r1^t + c2*r2^t of the two roots of `momentum.companion`, solved for |w_t| = end;
    heavy ball is faster by about 1/(1 - mu) for small steps. Derived.

    Args:
        strength: m > 0 (loss / w^2).
        lr: eta.
        start: |w| at the start, > 0.
        end: |w| that counts as escaped.
        rho: radius of the unnormalised ascent (w per gradient).
        method: "SGD", "USAM" or "SSAM-U".
        momentum: mu in [0, 1).
        nesterov: as in torch.optim.SGD.
    """
    for name, value in (("strength", strength), ("start", start), ("end", end)):
        check_positive(name, value)
    if end <= start:
        return 0.0
    a = drive(-strength, rho, method)
    first, second = (root.real for root in roots(a, lr, momentum, nesterov))
    if a >= 0 or first <= 1:
        return math.inf
    # For a < 0 both roots are real and >= 0. w_1 = (first + second - momentum) * start, as v = 0 at the start.
    next_w = first + second - momentum
    c1 = (next_w - second) / (first - second)
    log_end = math.log(end / start)

    def size(t: float) -> float:
        """log |w_t / start|, without overflow."""
        fading = (1 - c1) / c1 * (second / first) ** t if second > 0 else 0.0
        return t * math.log(first) + math.log(c1) + math.log1p(fading)

    low, high = 0.0, 1.0
    while size(high) < log_end:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) < log_end else (low, middle)
    return high


def escape_growth(
    strength: float,
    lr: float,
    rho: float = 0.0,
    method: str = "USAM",
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    """Factor a step by which |w| grows along a direction of eigenvalue -m; <= 1 where the saddle holds it."""
    check_positive("strength", strength)
    return growth(-strength, lr, rho, method, momentum, nesterov)
