"""One mode of a quadratic under SGD with momentum, as `torch.optim.SGD` defines it: a 2x2 linear map and its roots.

In a mode of curvature l (loss / w^2) the base gets d = a*w, where the drive a (loss / w^2) says what the method makes
of l. With weight decay lam the base sees A = a + lam, since it adds lam*w to d. With momentum mu and dampening tau its
step is, from v = 0,

    v' = mu*v + (1 - tau)*A*w,      w' = w - eta*v'                    (heavy ball: Polyak 1964)
    v' = mu*v + A*w,                w' = w - eta*(A*w + mu*v')         (Nesterov 1983, Sutskever et al. 2013)

The very first step of torch leaves dampening out; that changes no limit. Derived here; tests step the real optimizer.
"""

from __future__ import annotations

import cmath
import math

from fenland.arguments import check_among, check_number

LINEAR = ("SGD", "USAM", "SSAM-U")
METHODS = (*LINEAR, "SAM", "SSAM")

Matrix = tuple[tuple[float, float], tuple[float, float]]


def drive(curvature: float, rho: float = 0.0, method: str = "USAM") -> float:
    r"""a of d = a*w in one mode (loss / w^2).

    SGD: l. USAM: h = l*(w + rho*l*w), so a = l*(1 + rho*l): negative curvature beyond -1/rho becomes attraction. SSAM-U
    on a single mode: d = h*|g|/|h|, so a = l*sign(1 + rho*l). Derived.

    Args:
        curvature: l.
        rho: radius of the unnormalised ascent (w per gradient).
        method: "SGD", "USAM" or "SSAM-U". Under the normalised ascent d is not linear in w.
    """
    check_number("curvature", curvature)
    check_number("rho", rho, low=0.0)
    check_among("method", method, LINEAR)
    stretch = 1 + rho * curvature
    if method == "SGD":
        stretch = 1.0
    elif method == "SSAM-U":
        stretch = math.copysign(1.0, stretch) if stretch else 1.0  # h = 0: gamma is 1 and d = 0, which 1 only bounds
    return curvature * stretch


def companion(a: float, lr: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> Matrix:
    r"""M of (w', v') = M (w, v) for a drive a that includes weight decay; the equations are the module's.

    Heavy ball: [[1 - x, -eta*mu], [(1-tau)*a, mu]] with x = eta*(1-tau)*a: trace 1 + mu - x, determinant mu.
    Nesterov: [[1 - (1+mu)*eta*a, -eta*mu^2], [a, mu]]: trace 1 + mu - (1+mu)*eta*a, determinant mu*(1 - eta*a).
    """
    check_base(momentum, nesterov, dampening)
    check_number("lr", lr, low=0.0)
    if nesterov:
        return (1 - (1 + momentum) * lr * a, -lr * momentum**2), (a, momentum)
    part = share(momentum, dampening)
    return (1 - lr * part * a, -lr * momentum), (part * a, momentum)


def roots(a: float, lr: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> list[complex]:
    """The two eigenvalues of `companion`, largest modulus first; without momentum 1 - eta*a and 0."""
    (p, q), (r, s) = companion(a, lr, momentum, nesterov, dampening)
    half, root = (p + s) / 2, cmath.sqrt(((p - s) / 2) ** 2 + q * r)
    return sorted((half + root, half - root), key=abs, reverse=True)


def growth(
    curvature: float,
    lr: float,
    rho: float = 0.0,
    method: str = "USAM",
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
) -> float:
    """Factor a step by which a mode grows (> 1) or shrinks (< 1) in the long run: the spectral radius of `companion`.

    Args:
        curvature: l, of either sign.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        method: "SGD", "USAM" or "SSAM-U".
        momentum: mu in [0, 1).
        nesterov: as in torch.optim.SGD.
        dampening: as in torch.optim.SGD.
        weight_decay: as in torch.optim.SGD, where it is added to d.
    """
    check_number("weight_decay", weight_decay, low=0.0)
    return abs(roots(drive(curvature, rho, method) + weight_decay, lr, momentum, nesterov, dampening)[0])


def reach(momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0) -> float:
    r"""x such that a mode of drive A > 0 contracts iff eta*A < x (no unit); 2 without momentum.

    Both roots lie within the unit circle iff |det| < 1 and |trace| < 1 + det (Jury); here 1 + trace + det > 0 decides.
    Heavy ball: 2*(1+mu) > eta*(1-tau)*A. Nesterov: 2*(1+mu) > (1+2*mu)*eta*A. The heavy ball widens the limit (3.8 at
    mu = 0.9), Nesterov narrows it (1.36). Derived.
    """
    check_base(momentum, nesterov, dampening)
    if nesterov:
        return 2 * (1 + momentum) / (1 + 2 * momentum)
    return 2 * (1 + momentum) / share(momentum, dampening)


def share(momentum: float, dampening: float) -> float:
    """The part of d that enters the buffer, 1 - tau; without momentum torch ignores dampening."""
    return 1 - dampening if momentum else 1.0


def check_base(momentum: float, nesterov: bool, dampening: float) -> None:
    """Raise a ValueError unless torch.optim.SGD takes these and they contract at all."""
    check_number("momentum", momentum, low=0.0)
    check_number("dampening", dampening, low=0.0)
    if momentum >= 1:
        raise ValueError(f"momentum = {momentum!r}: must lie in [0, 1)")
    if dampening >= 1:
        raise ValueError(f"dampening = {dampening!r}: must lie in [0, 1)")
    if nesterov and (not momentum or dampening):
        raise ValueError("nesterov = True: needs momentum > 0 and dampening = 0, as in torch.optim.SGD")


def check_positive(name: str, value: float) -> None:
    """Raise a ValueError unless `value` is finite and > 0."""
    check_number(name, value)
    if not value > 0:
        raise ValueError(f"{name} = {value!r}: must be finite and > 0")
