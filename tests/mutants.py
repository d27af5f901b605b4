"""Wrong optimizers. Each differs from the paper in one way that training curves hide; the oracles must reject them all.

A stepper maps (w, grad, rho, lr) to the weights after one step of plain SGD on d. `WRONG_SAM` are the eight of our
review of other libraries (no ascent, first gradient, sign, norm, norm per tensor, L1, half radius, not restored).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from twins import Grad, Vector, norm, sam, usam

Stepper = Callable[[Vector, Grad, float, float], Vector]


def _add(w: Vector, v: Vector, scale: float = 1.0) -> Vector:
    return [x + scale * y for x, y in zip(w, v, strict=True)]


def _perturbed(direction: Callable[[Vector, float], Vector]) -> Stepper:
    """A SAM whose perturbation is `direction(g, rho)`."""
    return lambda w, grad, rho, lr: _add(w, grad(_add(w, direction(grad(w), rho))), -lr)


def _not_restored(w: Vector, grad: Grad, rho: float, lr: float) -> Vector:
    up = _add(w, sam(w, grad, rho).e)
    return _add(up, grad(up), -lr)


def _per_tensor(g: Vector, rho: float) -> Vector:
    return [rho * x / np.linalg.norm(x) for x in g]


WRONG_SAM: dict[str, Stepper] = {
    "no ascent": _perturbed(lambda g, rho: [0 * x for x in g]),
    "first gradient used": lambda w, grad, rho, lr: _add(w, sam(w, grad, rho).g, -lr),
    "sign flipped": _perturbed(lambda g, rho: [-rho * x / norm(g) for x in g]),
    "not normalised": _perturbed(lambda g, rho: [rho * x for x in g]),
    "norm per tensor": _perturbed(_per_tensor),
    "L1 norm": _perturbed(lambda g, rho: [rho * x / sum(np.abs(y).sum() for y in g) for x in g]),
    "half radius": _perturbed(lambda g, rho: [0.5 * rho * x / norm(g) for x in g]),
    "not restored": _not_restored,
}

WRONG_USAM: dict[str, Stepper] = {
    "normalised": _perturbed(lambda g, rho: [rho * x / norm(g) for x in g]),
    "clipped at the ball": _perturbed(lambda g, rho: [rho * min(1.0, 1.0 / norm(g)) * x for x in g]),
    "squared norm": _perturbed(lambda g, rho: [rho * norm(g) * x for x in g]),
    "no ascent": WRONG_SAM["no ascent"],
}


def _scaled(gamma: Callable[..., float | list[float]], ascent: Callable = sam) -> Stepper:
    """An SSAM whose factor is `gamma(w, step, rho)`: one number, or one per tensor."""

    def stepper(w: Vector, grad: Grad, rho: float, lr: float) -> Vector:
        step = ascent(w, grad, rho)
        factors = gamma(w, step, rho)
        factors = factors if isinstance(factors, list) else [factors] * len(w)
        return [x - lr * f * y for x, f, y in zip(w, factors, step.h, strict=True)]

    return stepper


def _weights_scaled(w: Vector, grad: Grad, rho: float, lr: float) -> Vector:
    step = sam(w, grad, rho)
    return _add(w, step.g, -lr * norm(step.h) / norm(step.g))  # direction g, length ||h||: the mirror image


WRONG_SSAM: dict[str, Stepper] = {
    "gamma not applied": _scaled(lambda w, s, rho: 1.0),
    "gamma inverted": _scaled(lambda w, s, rho: norm(s.h) / norm(s.g)),
    "gamma squared": _scaled(lambda w, s, rho: (norm(s.g) / norm(s.h)) ** 2),
    "gamma per tensor": _scaled(lambda w, s, rho: [norm([x]) / norm([y]) for x, y in zip(s.g, s.h, strict=True)]),
    "gamma from the last tensor": _scaled(lambda w, s, rho: norm(s.g[-1:]) / norm(s.h[-1:])),
    "gamma with L1 norms": _scaled(lambda w, s, rho: _l1(s.g) / _l1(s.h)),
    "gamma from weights": _scaled(lambda w, s, rho: norm(w) / norm(_add(w, s.e))),
    "gamma in the |w| metric": _scaled(lambda w, s, rho: norm(_times(w, s.g)) / norm(_times(_add(w, s.e), s.h))),
    "always truncated": _scaled(lambda w, s, rho: min(1.0, norm(s.g) / norm(s.h))),
    "unnormalised ascent": _scaled(lambda w, s, rho: norm(s.g) / norm(s.h), ascent=usam),
    "mirror image": _weights_scaled,
}


def _l1(v: Vector) -> float:
    return float(sum(np.abs(x).sum() for x in v))


def _times(u: Vector, v: Vector) -> Vector:
    return [np.abs(x) * y for x, y in zip(u, v, strict=True)]
