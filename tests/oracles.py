"""Oracles for a stepper (w, grad, rho, lr) -> w: each is another computation of the same step, in float64.

They are applied to the twins, to fenland through its public API, and to the mutants, which must all fail.
"""

from __future__ import annotations

import numpy as np
import torch

from cases import hessian
from mutants import Stepper
from twins import Vector, quadratic_loss

RHO, LR = 0.3, 0.1


def problem(negative: bool, sign: float, seed: int) -> tuple[np.ndarray, Vector]:
    """A dense quadratic (convex, a saddle, concave) over a matrix and a vector whose gradients differ in size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        matrix = hessian(negative=negative, sign=sign).numpy()
        start = torch.randn(10, dtype=torch.float64).numpy()
    return matrix, [3.0 * start[:6].reshape(2, 3), start[6:].copy()]


def _flat(w: Vector) -> np.ndarray:
    return np.concatenate([x.reshape(-1) for x in w])


def _agree(got: Vector, want: np.ndarray) -> bool:
    return bool(np.allclose(_flat(got), want, rtol=1e-11, atol=1e-13))


def _cases() -> list[tuple[np.ndarray, Vector]]:
    kinds = ((False, 1.0), (True, 1.0), (False, -1.0))
    return [problem(negative, sign, seed) for negative, sign in kinds for seed in (1, 2, 3)]


def sam_oracle(stepper: Stepper) -> bool:
    """w - lr H (w + rho Hw / ||Hw||)."""
    ok = True
    for matrix, w in _cases():
        g = matrix @ _flat(w)
        want = _flat(w) - LR * matrix @ (_flat(w) + RHO * g / np.sqrt(g @ g))
        ok &= _agree(stepper(w, quadratic_loss(matrix)[1], RHO, LR), want)
    return ok


def usam_oracle(stepper: Stepper) -> bool:
    """w - lr (H + rho H^2) w."""
    ok = True
    for matrix, w in _cases():
        want = _flat(w) - LR * (matrix + RHO * matrix @ matrix) @ _flat(w)
        ok &= _agree(stepper(w, quadratic_loss(matrix)[1], RHO, LR), want)
    return ok


def ssam_oracle(stepper: Stepper) -> bool:
    """SAM's direction with the gradient's length: w - lr ||Hw|| u, u = H(w + rho Hw / ||Hw||) made a unit vector."""
    ok = True
    for matrix, w in _cases():
        g = matrix @ _flat(w)
        h = matrix @ (_flat(w) + RHO * g / np.sqrt(g @ g))
        want = _flat(w) - LR * np.sqrt(g @ g) * h / np.sqrt(h @ h)
        ok &= _agree(stepper(w, quadratic_loss(matrix)[1], RHO, LR), want)
    return ok


def ssam_unnormalized_oracle(stepper: Stepper) -> bool:
    """The paper's SSAM in the eigenbasis of H: mode by mode, h_i = l_i (1 + rho l_i) w_i, then the length of g."""
    ok = True
    for matrix, w in _cases():
        values, vectors = np.linalg.eigh(matrix)
        modes = vectors.T @ _flat(w)
        h = values * (1 + RHO * values) * modes
        modes = modes - LR * h * np.sqrt(((values * modes) ** 2).sum() / (h**2).sum())
        ok &= _agree(stepper(w, quadratic_loss(matrix)[1], RHO, LR), vectors @ modes)
    return ok
