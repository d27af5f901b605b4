r"""The edge of stability: the largest Hessian eigenvalue near which training at a learning rate settles.

Gradient descent on networks sharpens until the largest eigenvalue l is 2/eta and stays about there (Cohen et al. 2021,
arXiv 2103.00065). Where a step multiplies the steepest mode by 1 - eta*a, the edge is where the drive a reaches 2/eta.
"""

from __future__ import annotations

import math

from fenland.arguments import check_among, check_number
from fenland.theory.momentum import METHODS, check_positive, reach


def edge_curvature(
    lr: float,
    rho: float = 0.0,
    method: str = "SGD",
    grad_norm: float | None = None,
    gamma: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
) -> float:
    r"""l at which c*l*(1 + r*l) + lam = x/eta, x = `reach` (2 without momentum): the edge (loss / w^2).

        l = (sqrt(1 + 4*r*A/c) - 1)/(2*r),   A = x/eta - lam;   A/c where r = 0

    r is rho for the unnormalised ascent and rho/||g|| for the normalised one, c is 1 for SAM and gamma = ||g||/||h||
    for SSAM. So the edge is

    - SGD: 2/eta.
    - SAM: ||g||/(2*rho)*(sqrt(1 + 8*rho/(eta*||g||)) - 1), of Long and Bartlett 2024, arXiv 2309.12488. It falls with
      the gradient, as sqrt(2*||g||/(eta*rho)): near a minimum SAM is at no edge but on a cycle (`cycle_amplitude`).
    - USAM: the same with rho*||g|| for rho: (sqrt(1 + 8*rho/eta) - 1)/(2*rho), the inverse of `stable_lr`.
    - SSAM, SSAM-U: between SAM's and SGD's. c*(1 + r*l) = 1 where g lies along the steepest mode alone; without a gamma
      that is assumed, and the edge is SGD's. Elsewhere g is along less curved directions, and c*(1 + r*l) > 1. Derived.

    Args:
        lr: eta > 0.
        rho: radius.
        method: "SGD", "USAM", "SAM", "SSAM-U" or "SSAM".
        grad_norm: ||g|| > 0; needed for "SAM", and for "SSAM" with a gamma.
        gamma: ||g||/||h|| > 0 as measured, for SSAM.
        momentum: mu in [0, 1).
        nesterov: as in torch.optim.SGD.
        dampening: as in torch.optim.SGD.
        weight_decay: as in torch.optim.SGD.

    Raises:
        ValueError: the weight decay alone is over the limit, or an argument is missing or out of range.
    """
    check_among("method", method, METHODS)
    check_positive("lr", lr)
    check_number("rho", rho, low=0.0)
    check_number("weight_decay", weight_decay, low=0.0)
    allowed = reach(momentum, nesterov, dampening) / lr - weight_decay
    if allowed <= 0:
        raise ValueError(f"weight_decay = {weight_decay!r}: at lr {lr:g} it must be < {allowed + weight_decay:.6g}")
    stable = method.startswith("SSAM")
    if method == "SGD" or rho == 0 or (stable and gamma is None):
        return allowed
    if gamma is not None:
        check_positive("gamma", gamma)
    if stable:
        allowed /= gamma or 1.0
    radius = rho
    if method in ("SAM", "SSAM"):
        if grad_norm is None:
            raise ValueError(f"grad_norm = None: the edge of {method} depends on ||g||; pass it")
        check_positive("grad_norm", grad_norm)
        radius = rho / grad_norm
    return 2 * allowed / (1 + math.sqrt(1 + 4 * radius * allowed))  # the root, without cancellation for small radii


def neuron_end(lr: float, rho: float = 0.0, method: str = "SGD") -> float:
    r"""y^2 at which the single neuron L(x, y) = l(x*y) comes to rest at x = 0 (unit w^2): the edge, as l''(0) = 1.

    At its minima (0, y) the Hessian is diag(y^2, 0), and there GD or USAM is stable iff eta*y^2*(1 + rho*y^2) < 2. From
    y^2 beyond that x oscillates, which lets y^2 fall until it is just inside: GD ends at y^2 = 2/eta, USAM at y^2*(1 +
    rho*y^2) = 2/eta, both forms of SSAM about where GD does, as one mode is left: the larger eta and rho are, the
    further inside (on sqrt(1 + u^2) - 1 by 2.4 and 3.6 % at eta 0.1, rho 0.2, where GD is 0.5 % inside). Started
    inside, they keep y^2 as it is but for the way there. Under SAM x stays on its cycle, and y^2 goes on falling, by
    about 2*eta*rho^2*y^2 a step, towards 0. So renormalising takes away what the paper praises the normalised ascent
    for. Source: Dai, Ahn, Sra 2023, arXiv 2305.15287, with l convex, even, of slope at most 1, such as sqrt(1 + u^2) -
    1. The equations are derived.

    Args:
        lr: eta > 0.
        rho: radius.
        method: "SGD", "USAM", "SAM", "SSAM-U" or "SSAM".
    """
    check_among("method", method, METHODS)
    return 0.0 if method == "SAM" and rho else edge_curvature(lr, rho, method)
