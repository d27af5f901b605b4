"""Slow twins: the papers' equations in plain NumPy, float64, one tensor after the other. They never import fenland.

A twin takes the weights `w` (a list of arrays), `grad` (weights -> gradients) and `rho` (a number, or one per tensor)
and returns everything that happens in one step up to the hand-over to the base optimizer. To add a variant, write its
function and name it in `TWINS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Vector = list[np.ndarray]
Grad = Callable[[Vector], Vector]
Rho = float | Sequence[float]


@dataclass
class TwinStep:
    """One step: gradient g at w, perturbation e, gradient h at w + e, what the base gets d, and d's factor gamma."""

    g: Vector
    e: Vector
    h: Vector
    d: Vector
    gamma: float = 1.0


def norm(v: Vector) -> float:
    """One L2 norm over all tensors."""
    return float(np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in v)))


def dot(u: Vector, v: Vector) -> float:
    return float(sum((x * y).sum() for x, y in zip(u, v, strict=True)))


def _radii(rho: Rho, n: int) -> list[float]:
    return [float(rho)] * n if np.isscalar(rho) else [float(r) for r in rho]


def _ascend(w: Vector, grad: Grad, scale: list[float]) -> tuple[Vector, Vector, Vector]:
    g = grad(w)
    e = [s * x for s, x in zip(scale, g, strict=True)]
    return g, e, grad([x + y for x, y in zip(w, e, strict=True)])


def sam(w: Vector, grad: Grad, rho: Rho) -> TwinStep:
    """e = rho g / ||g||, d = h (variants.md 2.1); the norm runs over the tensors with rho > 0."""
    radii = _radii(rho, len(w))
    length = norm([x for x, r in zip(grad(w), radii, strict=True) if r > 0] or [np.zeros(1)])
    g, e, h = _ascend(w, grad, [r / length if length > 0 else 0.0 for r in radii])
    return TwinStep(g, e, h, h)


def usam(w: Vector, grad: Grad, rho: Rho) -> TwinStep:
    """e = rho g, d = h (variants.md 2.2)."""
    g, e, h = _ascend(w, grad, _radii(rho, len(w)))
    return TwinStep(g, e, h, h)


def ssam(w: Vector, grad: Grad, rho: Rho, normalize: bool = True, cap: float | None = None) -> TwinStep:
    """d = gamma h with gamma = ||g|| / ||h||, at most `cap` (variants.md 2.3); gamma = 1 where h = 0."""
    step = (sam if normalize else usam)(w, grad, rho)
    gamma = norm(step.g) / norm(step.h) if norm(step.h) > 0 else 1.0
    step.gamma = gamma if cap is None else min(gamma, cap)
    step.d = [step.gamma * x for x in step.h]
    return step


TWINS: dict[str, Callable[..., TwinStep]] = {"SAM": sam, "USAM": usam, "SSAM": ssam}


@dataclass
class SGDTwin:
    """torch.optim.SGD's update: v = mu v + (d + wd w), w = w - lr v."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    velocity: Vector | None = None

    def step(self, w: Vector, d: Vector) -> Vector:
        d = [x + self.weight_decay * y for x, y in zip(d, w, strict=True)]
        if self.velocity is not None:
            d = [self.momentum * v + x for v, x in zip(self.velocity, d, strict=True)]
        self.velocity = d
        return [x - self.lr * y for x, y in zip(w, d, strict=True)]


def quadratic_loss(hessian: np.ndarray) -> tuple[Callable[[Vector], float], Grad]:
    """f(w) = w'Hw/2 over the concatenated tensors, and its gradient Hw."""

    def flat(w: Vector) -> np.ndarray:
        return np.concatenate([x.reshape(-1) for x in w])

    def grad(w: Vector) -> Vector:
        out, at = [], 0
        full = hessian @ flat(w)
        for x in w:
            out.append(full[at : at + x.size].reshape(x.shape))
            at += x.size
        return out

    return (lambda w: float(0.5 * flat(w) @ hessian @ flat(w))), grad


def mlp_loss(x: np.ndarray, y: np.ndarray) -> tuple[Callable[[Vector], float], Grad]:
    """Mean cross entropy of Linear-tanh-Linear, w = [W1, b1, W2, b2], and its gradient by hand."""

    def forward(w: Vector) -> tuple[np.ndarray, np.ndarray]:
        z = np.tanh(x @ w[0].T + w[1])
        logits = z @ w[2].T + w[3]
        logits = logits - logits.max(1, keepdims=True)
        return z, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def loss(w: Vector) -> float:
        return float(-np.log(forward(w)[1][np.arange(len(y)), y]).mean())

    def grad(w: Vector) -> Vector:
        z, p = forward(w)
        delta = (p - np.eye(p.shape[1])[y]) / len(y)
        back = (delta @ w[2]) * (1 - z**2)
        return [back.T @ x, back.sum(0), delta.T @ z, delta.sum(0)]

    return loss, grad
