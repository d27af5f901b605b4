r"""How much one training example can move the result of SGD, SAM and SSAM: uniform stability, no momentum.

Two runs on data sets of n examples that differ in one, with the same draws of batches, are delta_t apart in weights.
An algorithm is eps-uniformly stable if the loss of no example differs by more than eps between them in expectation;
eps bounds the expected generalisation gap (Bousquet and Elisseeff 2002; Hardt, Recht, Singer 2016, arXiv 1509.01240).

Assumptions. The loss of each example is L-Lipschitz (loss / w) and has a beta-Lipschitz gradient with Hessian
eigenvalues in [mu, beta] (mu = -beta: nothing known; 0: convex; > 0: strongly convex, loss / w^2) where the runs go.
A step computes both passes on the same batch of B examples, drawn uniformly. With q a Lipschitz constant of the step's
map on a fixed batch,

    E[delta_{t+1}] <= q_t * E[delta_t] + 2*eta_t*L*s/n + extra,        eps <= L * E[delta_T]

for the changed example is in the batch with probability B/n and then changes d by at most 2*L*s/B: s = 1 for SGD and
for B = 1, as ||d|| <= L; otherwise at most `spill`, since it moves the ascent point of the whole batch too.
`expansivity` is q. Tan et al., arXiv 2401.07250, state such bounds for SAM and SSAM, which are not set beside these:
all here is derived. Their claim that SAM is assured in a limited range of learning rates only is seen in `expansivity`;
how far SSAM extends it is said there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fenland.arguments import check_among, check_number, check_whole
from fenland.theory.momentum import METHODS, check_positive


@dataclass(frozen=True)
class Smoothness:
    """What is known of every example's loss, in the region where the runs go.

    Attributes:
        lipschitz: L > 0, bound of the gradient's norm (loss / w).
        smoothness: beta > 0, largest |Hessian eigenvalue| (loss / w^2).
        convexity: mu in [-beta, beta], least Hessian eigenvalue (loss / w^2).
        hessian: bound of the Hessian's Lipschitz constant (loss / w^3); 0 for quadratics, None where unknown.
        gradient_floor: a bound from below of ||g|| along the runs (loss / w); what normalised ascents need, 0 for none.
    """

    lipschitz: float
    smoothness: float
    convexity: float = 0.0
    hessian: float | None = None
    gradient_floor: float = 0.0

    def __post_init__(self) -> None:
        check_positive("lipschitz", self.lipschitz)
        check_positive("smoothness", self.smoothness)
        check_number("convexity", self.convexity, -self.smoothness, self.smoothness)
        check_number("gradient_floor", self.gradient_floor, low=0.0)
        if self.hessian is not None:
            check_number("hessian", self.hessian, low=0.0)


def expansivity(lr: float, rho: float, method: str, known: Smoothness) -> float:
    r"""q: a Lipschitz constant of one step w -> w - eta*d(w) on a fixed batch (no unit; <= 1 does not expand).

    Let P, Q be Hessians (averaged over a segment) at w and at the ascent point, eigenvalues in [mu, beta].

    - SGD: ||I - eta*P|| = max(|1 - eta*mu|, |1 - eta*beta|). At most 1 for convex f and eta <= 2/beta (Hardt et al.,
      Lemma 3.7), 1 + eta*beta without convexity.
    - USAM: I - eta*Q*(I + rho*P). The least of what these give:
      general, with P = c + E, c = (beta + mu)/2: max|1 - eta*l*(1 + rho*c)| + eta*rho*beta*(beta - mu)/2, l in {mu,
      beta}; convex, by cocoercivity, for eta < 2/beta: sqrt(1 + eta*rho^2*beta^3/(2 - eta*beta));
      Hessian known, ||P - Q|| <= k = hessian*rho*L: max_l |1 - eta*l*(1 + rho*l)| + eta*k*(1 + rho*beta), l in
      [mu, beta]. On quadratics k = 0, so q <= 1 iff eta <= 2/(beta*(1 + rho*beta)): SGD's range by 1 + rho*beta.
    - SAM: the unit vectors u differ by at most min(2, ||P x||/floor): with a floor q = SGD's + eta*rho*beta^2/floor;
      without one it is SGD's q and an additive `extra`, since the map jumps where g = 0.
    - SSAM-U: d = ||g||*h/||h||. With K = I + rho*P the Jacobian of d is gamma*K*P plus a rank-one matrix of norm <=
      beta*(kappa - 1/kappa)/2 by Kantorovich's inequality, kappa = (1 + rho*beta)/(1 + rho*mu) the ratio of K's
      eigenvalues, and gamma*K*P has eigenvalues in [mu/kappa, beta*kappa]. So on convex quadratics
      q = max(|1 - eta*mu/kappa|, |1 - eta*beta*kappa|) + eta*beta*(kappa - 1/kappa)/2, and terms in k otherwise.
      Without a known Hessian: |d - d'|^2 <= |g - g'|^2 + |h - h'|^2*gamma*gamma', q = 1 + eta*beta*sqrt(1 + kappa_0^2),
      kappa_0 = (1 + rho*beta)/(1 + rho*min(mu, 0)).
    - SSAM on convex quadratics: as SSAM-U with rho/floor (kappa = beta/mu without a floor: finite, where SAM jumps) and
      eta*beta*(kappa - 1)/(kappa + 1) more, since the ascent turns with g alone.

    On what SSAM extends: its range 2/(beta*(3*kappa - 1/kappa)/2) is wider than USAM's where mu is a good part of beta,
    as kappa then lies well below 1 + rho*beta. But on wide spectra q exceeds 1 even at small eta, where USAM contracts
    quadratics, and that is no slack of the bound: some neighbours do move apart (by 9 % a step at beta = 1, mu = 0.05,
    eta = 0.1, rho = 20; test). That SSAM is stable up to 2/beta is a fact of trajectories (`quadratic.convergence`),
    not of worst-case pairs.

    Args:
        lr: eta.
        rho: radius.
        method: "SGD", "USAM", "SAM", "SSAM-U" or "SSAM".
        known: of the losses.

    Raises:
        ValueError: SSAM where the losses are not known to be convex quadratics, or SSAM-U where 1 + rho*mu <= 0.
    """
    check_number("lr", lr, low=0.0)
    check_number("rho", rho, low=0.0)
    check_among("method", method, METHODS)
    plain = _widest(lr, known.convexity, known.smoothness)
    if method == "SGD" or rho == 0:
        return plain
    if method == "USAM":
        return _usam(lr, rho, known)
    if method == "SAM":
        floor = known.gradient_floor
        return plain + (lr * rho * known.smoothness**2 / floor if floor else 0.0)
    return _stable_unnormalised(lr, rho, known) if method == "SSAM-U" else _stable(lr, rho, known)


def spill(rho: float, method: str, known: Smoothness, batch: int = 1) -> float:
    r"""s: by how much more than 2*L/B one example of a batch of B can change d (no unit), at most B as ||d|| <= L.

    Its share of g moves the ascent point, and with it the gradients of the others. SGD: 1. USAM: 1 + rho*beta. SSAM-U:
    sqrt(1 + kappa_0^2), from |d - d'|^2 <= |g - g'|^2 + |h - h'|^2*gamma*gamma', as in `expansivity`. SAM and SSAM
    alike with rho/floor for rho; without a floor nothing better than B is known. Derived.
    """
    check_whole("batch", batch, 1)
    check_among("method", method, METHODS)
    if method == "SGD" or rho == 0:
        return 1.0
    if method in ("SAM", "SSAM"):
        if not known.gradient_floor:
            return float(batch)
        rho = rho / known.gradient_floor
    stretch = 1 + rho * known.smoothness
    if method in ("SAM", "USAM"):
        return min(float(batch), stretch)
    least = 1 + rho * min(known.convexity, 0.0)
    return min(float(batch), math.sqrt(1 + (stretch / least) ** 2)) if least > 0 else float(batch)


def distance_bound(
    lr: float | Sequence[float],
    steps: int,
    samples: int,
    rho: float,
    method: str,
    known: Smoothness,
    batch: int = 1,
) -> float:
    r"""A bound of E[delta_T], the distance of two runs on neighbouring data sets (unit of w).

    The recursion of the module, from delta_0 = 0. With a constant q it is (2*eta*L*s/n + extra)*(q^T - 1)/(q - 1), and
    T*(2*eta*L*s/n + extra) at q = 1: for SGD on convex losses 2*L*sum(eta_t)/n (Hardt et al., Theorem 3.8), for q < 1
    at most 2*L/(mu*n) (their Theorem 3.9). extra is 0 but for SAM without a gradient floor, where it is
    2*eta*beta*rho: two runs may climb opposite ways from nearly the same point, and no number of samples helps.
    Never more than 2*L*sum(eta_t), which any two runs keep.

    Args:
        lr: eta, one number or one a step.
        steps: T.
        samples: n.
        rho: radius.
        method: "SGD", "USAM", "SAM", "SSAM-U" or "SSAM".
        known: of the losses. L must bound the gradient at ascent points as well.
        batch: B; samples for full batches.
    """
    check_whole("steps", steps, 0)
    check_whole("samples", samples, 1)
    rates = [float(lr)] * steps if isinstance(lr, (int, float)) else [float(x) for x in lr]
    if len(rates) != steps:
        raise ValueError(f"lr: {len(rates)} learning rates for steps = {steps}; pass one number or one a step")
    share = spill(rho, method, known, batch)
    seen: dict[float, float] = {}
    distance = 0.0
    for eta in rates:
        if eta not in seen:
            seen[eta] = expansivity(eta, rho, method, known)
        q, jump = seen[eta], method == "SAM" and not known.gradient_floor
        extra = 2 * eta * known.smoothness * rho if jump else 0.0
        distance = q * distance + 2 * eta * known.lipschitz * share / samples + extra
    return min(distance, 2 * known.lipschitz * math.fsum(rates))


def stability_bound(
    lr: float | Sequence[float],
    steps: int,
    samples: int,
    rho: float,
    method: str,
    known: Smoothness,
    batch: int = 1,
) -> float:
    """eps = L * `distance_bound`: bound of uniform stability, and of the expected generalisation gap (unit of loss)."""
    return known.lipschitz * distance_bound(lr, steps, samples, rho, method, known, batch)


def _widest(lr: float, low: float, high: float) -> float:
    """max|1 - eta*l| over l in [low, high]."""
    return max(abs(1 - lr * low), abs(1 - lr * high))


def _usam(lr: float, rho: float, known: Smoothness) -> float:
    beta, mu = known.smoothness, known.convexity
    middle = 1 + rho * (beta + mu) / 2
    found = [_widest(lr * middle, mu, beta) + lr * rho * beta * (beta - mu) / 2]
    if mu >= 0 and lr * beta < 2:
        found.append(math.sqrt(1 + lr * rho**2 * beta**3 / (2 - lr * beta)))
    if known.hessian is not None:
        off = known.hessian * rho * known.lipschitz
        drives = [x * (1 + rho * x) for x in (mu, beta, *([-0.5 / rho] if mu < -0.5 / rho < beta else []))]
        found.append(_widest(lr, min(drives), max(drives)) + lr * off * (1 + rho * beta))
    return min(found)


def _stable_unnormalised(lr: float, rho: float, known: Smoothness) -> float:
    beta, mu = known.smoothness, known.convexity
    if 1 + rho * mu <= 0:
        raise ValueError(f"convexity = {mu!r}: 1 + rho*convexity must be > 0, or h may vanish and d jumps there")
    kappa = (1 + rho * beta) / (1 + rho * mu)
    loose = 1 + lr * beta * math.sqrt(1 + ((1 + rho * beta) / (1 + rho * min(mu, 0.0))) ** 2)
    if known.hessian is None or mu < 0:
        return loose
    off = known.hessian * rho * known.lipschitz
    tilt = rho * off / 2 / (1 + rho * mu)  # relative error of gamma by the Hessian's change along the ascent
    if tilt >= 1:
        return loose
    turn = (kappa - 1 / kappa) / 2 + (kappa + 1 / kappa) / 2 * ((1 - tilt) ** -2 - 1)
    change = kappa * off * (2 + rho * beta / 2 / (1 + rho * mu))
    return min(loose, _widest(lr, mu / kappa, beta * kappa) + lr * (beta * turn + change))


def _stable(lr: float, rho: float, known: Smoothness) -> float:
    beta, mu, floor = known.smoothness, known.convexity, known.gradient_floor
    if known.hessian != 0 or mu < 0 or (mu == 0 and not floor):
        raise ValueError(
            f"method = 'SSAM': bounded on quadratics (hessian = 0, not {known.hessian!r}) that are strongly convex, or "
            f"convex with a gradient_floor > 0 (convexity = {mu!r}, gradient_floor = {floor!r}); 'SSAM-U' needs less"
        )
    kappa = (1 + rho / floor * beta) / (1 + rho / floor * mu) if floor else beta / mu
    turn = (kappa - 1 / kappa) / 2 + (kappa - 1) / (kappa + 1)
    return _widest(lr, mu / kappa, beta * kappa) + lr * beta * turn
