"""Sharpness-aware steps on quadratics, in closed form: which learning rates are stable, and how fast they converge.

One mode of curvature l (unit: loss / w^2; negative at a saddle), learning rate eta (w per gradient) and radius rho (w
for the normalised ascent, w per gradient for the unnormalised one). Everything here is derived in its docstring; tests
set each formula beside replicas that are stepped by the optimizer's own rules, and beside the optimizer itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fenland.arguments import check_among, check_number
from fenland.theory.diffusion import displacement, noise_power
from fenland.theory.gamma import gamma_bounds, gamma_normalized
from fenland.theory.momentum import LINEAR, METHODS, check_positive, drive, growth, reach, share
from fenland.theory.saddle import captures, capturing_gradient, escape_steps

# All of one mode under one name; those that are imported live in the module of their subject.
__all__ = [
    "Limit",
    "best_lr",
    "captures",
    "capturing_gradient",
    "convergence",
    "cycle_amplitude",
    "displacement",
    "escape_steps",
    "factor",
    "gamma_bounds",
    "gamma_normalized",
    "noise_power",
    "spectrum_limit",
    "stable_lr",
]


def factor(curvature: float, lr: float, rho: float = 0.0, method: str = "USAM") -> float:
    r"""q of w_{t+1} = q * w_t in one mode, without momentum.

    SGD: q = 1 - eta*l. USAM: h = l*(w + rho*l*w), so q = 1 - eta*l*(1 + rho*l). SSAM-U on a single mode:
    d = h*|g|/|h| = l*w*sign(1 + rho*l), so q = 1 - eta*l*sign(1 + rho*l): SGD's, as long as rho*l > -1. Derived.

    Args:
        curvature: l.
        lr: eta.
        rho: radius of the unnormalised ascent (w per gradient).
        method: "SGD", "USAM" or "SSAM-U".
    """
    return 1 - lr * drive(curvature, rho, method)


def stable_lr(
    curvature: float,
    rho: float = 0.0,
    method: str = "USAM",
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
) -> float:
    r"""The learning rate below which one mode is stable: x/(a + lam), with the drive a and x = `momentum.reach`.

    x is 2 for plain SGD, 2*(1+mu)/(1-tau) for the heavy ball, 2*(1+mu)/(1+2*mu) for Nesterov. The drive is

    - SGD: l. USAM: l*(1 + rho*l), so that 2/(l*(1 + rho*l)) is its limit; l < -1/rho is attraction, with a limit too.
    - SSAM-U: l*sign(1 + rho*l), SSAM: l, as the renormalised step of a single mode l > 0 is SGD's. With several modes
      it is an observation that SGD's limit holds: near it the steepest mode alone is left. Without momentum
      `convergence` says more.
    - SAM (normalised ascent): l. Its rho sets no limit, since d = l*(w + rho*sign(w)) is the linear step and a bounded
      push: below SGD's limit SAM stays bounded, whatever rho is, and settles on a cycle (`cycle_amplitude`) instead of
      converging. A single step shrinks w only while ||g|| is large enough: at gradient norm ||g|| the mode sees the
      unnormalised radius rho/||g||, so `stable_lr(l, rho / grad_norm, "USAM")` is the limit of that step.

    Derived; source of the question: Tan et al., arXiv 2401.07250.

    Args:
        curvature: l (loss / w^2).
        rho: radius.
        method: "SGD", "USAM", "SAM", "SSAM-U" or "SSAM".
        momentum: mu in [0, 1).
        nesterov: as in torch.optim.SGD.
        dampening: as in torch.optim.SGD.
        weight_decay: as in torch.optim.SGD: lam*w is added to d, so it counts as curvature that the ascent ignores.

    Raises:
        ValueError: no learning rate is stable in this mode (a + lam <= 0), or an argument is out of range.
    """
    check_among("method", method, METHODS)
    check_number("curvature", curvature)
    check_number("rho", rho, low=0.0)
    check_number("weight_decay", weight_decay, low=0.0)
    a = _drive(curvature, rho, method) + weight_decay
    if a <= 0:
        raise ValueError(
            f"curvature = {curvature!r}: {method} is stable in this mode at no learning rate (drive {a:.4g} <= 0); "
            "pass a curvature > 0, or a whole spectrum to spectrum_limit"
        )
    return reach(momentum, nesterov, dampening) / a


@dataclass(frozen=True)
class Limit:
    """Which learning rates a whole spectrum allows.

    Attributes:
        lr: the largest stable learning rate of the modes that can be stable; inf where there is none.
        eigenvalue: the mode that sets it; None where there is none.
        growing: eigenvalues that grow at any learning rate (escape from a saddle), ascending.
    """

    lr: float
    eigenvalue: float | None
    growing: tuple[float, ...]


def spectrum_limit(
    eigenvalues: Sequence[float],
    rho: float = 0.0,
    method: str = "USAM",
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
) -> Limit:
    r"""The stable learning rate of many modes, and which of them decides: the largest drive a + lam.

    For SGD and SAM that is the largest eigenvalue. For USAM a = l*(1 + rho*l) grows without end in both directions, so
    with rho*m > 1 a negative eigenvalue -m is held, and it decides where -m < -(l_max + 1/rho). Modes with a + lam < 0
    grow whatever the learning rate is (under a normalised ascent once ||g|| > rho*m, see `theory.capturing_gradient`);
    those with a + lam = 0 stay where they are. Arguments as `stable_lr`'s.
    """
    if not len(eigenvalues):
        raise ValueError("eigenvalues: must not be empty")
    check_among("method", method, METHODS)
    drives = {float(x): _drive(float(x), rho, method) + weight_decay for x in eigenvalues}
    growing = tuple(sorted(x for x, a in drives.items() if a < 0))
    decides, largest = max(drives.items(), key=lambda pair: pair[1])
    if largest <= 0:
        return Limit(math.inf, None, growing)
    return Limit(
        stable_lr(decides, rho, method, momentum, nesterov, dampening, weight_decay),
        decides,
        growing,
    )


def cycle_amplitude(
    curvature: float, lr: float, rho: float, momentum: float = 0.0, nesterov: bool = False, dampening: float = 0.0
) -> float:
    r"""A = eta*l*rho / (x - eta*l): SAM's final distance from the minimum of one mode (unit of w), x = `reach`.

    The normalised ascent never ends: d = l*(w + rho*sign(w)), and w -> -w is a cycle. Without momentum A*(2 - eta*l) =
    eta*l*rho; it attracts for 0 < eta*l < 2 (multiplier (1 - eta*l)^2 over two steps). With momentum v alternates too,
    v' = d/(1+mu), which gives the same form with x = 2*(1+mu) (heavy ball) or 2*(1+mu)/(1+2*mu) (Nesterov); it attracts
    from nearby, but SAM may circle on longer and wider cycles as well. Normalised SSAM has |d| = |g| and reaches the
    minimum instead. Many modes: |w_i| stays below eta*l*rho/(1 - |1 - eta*l|) in the end (no momentum), as the push of
    each step is at most eta*l*rho. Derived.
    """
    check_positive("curvature", curvature)
    check_number("rho", rho, low=0.0)
    part = share(momentum, dampening)
    x, scaled = reach(momentum, nesterov, dampening) * part, lr * curvature * part
    if not 0 < scaled < x:
        top = x / (part * curvature)
        raise ValueError(f"lr = {lr!r}: must lie in (0, {top:.6g}), the stable range; beyond there is no cycle")
    return scaled * rho / (x - scaled)


def convergence(
    eigenvalues: Sequence[float],
    lr: float,
    rho: float = 0.0,
    method: str = "USAM",
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    r"""Factor a step by which ||w|| shrinks in the long run on a quadratic of eigenvalues l > 0 (>= 1: it does not).

    - SGD, USAM: the largest `growth` of all modes; without momentum max|1 - eta*a| over the drives a.
    - SSAM-U, SSAM without momentum: with l, L the least and largest eigenvalue and their drives a, A

          max(1 - eta*l, (A - a)/(A + a), eta*L - 1)

      d_i = c*a_i*w_i with one c = ||g||/||h|| for all modes. Where the slowest mode is left alone c*a = l, where the
      steepest is c*A = L. In between both are left and must shrink alike, eta*c*A - 1 = 1 - eta*c*a, whatever eta is:
      c adapts, as a line search would, and the rate is that of the best fixed step on curvatures a..A. Drives:
      a = l*(1 + rho*l) for SSAM-U, a = l^2 for SSAM, whose rho/||g|| grows without end near the minimum. So below
      2/L SSAM always converges, but past 2*a/(l*(A + a)) no larger learning rate makes it faster. The balance is
      derived; that it attracts is an observation (tested over spectra, radii and learning rates).
    - SAM: 1, it ends on a cycle.

    Args:
        eigenvalues: all > 0.
        lr: eta.
        rho: radius.
        method: "SGD", "USAM", "SAM", "SSAM-U" or "SSAM".
        momentum: mu; SSAM's rate is known for mu = 0 only (with one eigenvalue it is SGD's).
        nesterov: as in torch.optim.SGD.
    """
    if not len(eigenvalues):
        raise ValueError("eigenvalues: must not be empty")
    for x in eigenvalues:
        check_positive("eigenvalues", x)
    check_among("method", method, METHODS)
    check_number("lr", lr, low=0.0)
    least, most = min(eigenvalues), max(eigenvalues)
    if method == "SAM" and rho:
        return max(1.0, growth(most, lr, 0.0, "SGD", momentum, nesterov))
    if method in LINEAR and method != "SSAM-U":
        return max(growth(x, lr, rho, method, momentum, nesterov) for x in eigenvalues)
    if least == most or not rho:
        return max(growth(x, lr, 0.0, "SGD", momentum, nesterov) for x in (least, most))
    if momentum:
        raise ValueError(f"momentum = {momentum!r}: the rate of {method} on several modes is known for 0 only")
    a, b = (x * (1 + rho * x) if method == "SSAM-U" else x * x for x in (least, most))
    return max(1 - lr * least, (b - a) / (b + a), lr * most - 1)


def best_lr(eigenvalues: Sequence[float], rho: float = 0.0, method: str = "USAM") -> tuple[float, float]:
    r"""(eta, rate) of the fastest learning rate on eigenvalues l > 0, no momentum: 2/(a + A) and (A - a)/(A + a).

    For SSAM-U and SSAM, the least learning rate that reaches the rate: 2*a/(l*(A + a)), see `convergence`. Derived.

    Args:
        eigenvalues: all > 0.
        rho: radius.
        method: "SGD", "USAM", "SSAM-U" or "SSAM".
    """
    check_among("method", method, (*LINEAR, "SSAM"))
    if not len(eigenvalues):
        raise ValueError("eigenvalues: must not be empty")
    for x in eigenvalues:
        check_positive("eigenvalues", x)
    least, most = min(eigenvalues), max(eigenvalues)
    if method == "SSAM" and rho:
        a, b = least * least, most * most
    else:
        a, b = (drive(x, rho, "USAM" if method in ("SSAM-U", "USAM") else "SGD") for x in (least, most))
    eta = 2 / (a + b) if method in ("SGD", "USAM") else 2 * a / (least * (a + b))
    return eta, (b - a) / (b + a)


def _drive(curvature: float, rho: float, method: str) -> float:
    """The drive that a limit follows from; a normalised method's is that of the linear part of its step."""
    return drive(curvature, rho, method if method in LINEAR else "SGD")
