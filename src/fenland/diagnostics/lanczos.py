"""Extreme eigenvectors of a Hessian operator: Lanczos that looks after every product, then SciPy's restarted one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.diagnostics.hessian import Hessian
from fenland.diagnostics.spectra import draws, matrix, need

SMALL = 40  # up to this many parameters the matrix itself is formed
STEPS, MEMORY = 64, 1 << 31  # Lanczos vectors that are kept, as long as they fit into so many bytes
LEAST = 20
FLOOR = 0.01  # an eigenvalue below this share of the largest |eigenvalue| is resolved as if it were that large
BREAKDOWN = 100  # rounding errors that count as nothing left to find


@dataclass(frozen=True)
class Ends:
    """Approximate eigenvectors of the two ends of the spectrum.

    Attributes:
        low: unit vectors of the smallest eigenvalues.
        high: unit vectors of the largest.
        scale: the largest |eigenvalue| that was met.
    """

    low: list[Tensor]
    high: list[Tensor]
    scale: float

    def bound(self, value: float, tol: float) -> float:
        """The largest residual of an eigenvalue that meets `tol`."""
        return tol * max(abs(value), FLOOR * self.scale)


def ends(hessian: Hessian, low: int, high: int, tol: float, limit: int, seed: int) -> Ends:
    """Eigenvectors of the `low` smallest and `high` largest eigenvalues.

    A residual is measured against its own eigenvalue, but at least against `FLOOR` of the largest one: a Krylov space
    that has hardly left its random start has small residuals near 0, where most eigenvalues are.

    Args:
        hessian: the operator.
        low: vectors wanted at the lower end.
        high: vectors wanted at the upper end.
        tol: bound on residual / eigenvalue.
        limit: products after which it stops, within one restart.
        seed: of the start.
    """
    if hessian.size <= max(SMALL, 2 * (low + high)):
        values, columns = torch.linalg.eigh(matrix(hessian))
        vectors = list(columns.to(hessian.device, hessian.dtype).T)
        return Ends(vectors[:low], vectors[len(vectors) - high :], float(values.abs().max()))
    steps = max(min(STEPS, MEMORY // (hessian.size * 4)), LEAST) + 2 * (low + high)
    first = _Iteration(hessian, draws(hessian, seed)(), low, high, tol)
    first.run(min(steps, limit, hessian.size))
    if first.converged or hessian.products >= limit:
        return first.ends()
    return _restarted(hessian, first, limit)


class _Iteration:
    """Lanczos with full reorthogonalisation, stopped as soon as the wanted Ritz values have converged."""

    def __init__(self, hessian: Hessian, start: Tensor, low: int, high: int, tol: float) -> None:
        self.hessian, self.low, self.high, self.tol = hessian, low, high, tol
        self.basis = (start / start.norm())[None]
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.converged = False

    def run(self, steps: int) -> None:
        for step in range(steps):
            v = self.basis[step]
            rest = self.hessian.matvec(v)
            self.alphas.append(float(v @ rest))
            known = self.basis[: step + 1]
            for _ in range(2):  # once is not enough in floating point, twice is
                rest = rest - known.T @ (known @ rest)
            self.betas.append(float(rest.norm()))
            self.converged = self._look()
            if self.converged or step + 1 == steps:
                return
            if step + 1 == len(self.basis):
                room = min(len(self.basis), steps - len(self.basis))
                self.basis = torch.cat([self.basis, self.basis.new_empty(room, len(v))])
            self.basis[step + 1] = rest / self.betas[-1]

    def _look(self) -> bool:
        """Solve the small problem; whether all wanted pairs have converged, or nothing is left to find."""
        off = torch.tensor(self.betas[:-1], dtype=torch.float64)
        small = torch.diag(torch.tensor(self.alphas, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
        self.values, self.vectors = torch.linalg.eigh(small)
        self.scale = float(self.values.abs().max())
        if self.betas[-1] <= BREAKDOWN * torch.finfo(self.hessian.dtype).eps * self.scale:
            return True
        if len(self.alphas) < self.low + self.high + 1:
            return False
        residuals = self.betas[-1] * self.vectors[-1].abs()
        enough = residuals <= self.tol * self.values.abs().clamp_min(FLOOR * self.scale)
        return bool(enough[self._wanted()].all())

    def _wanted(self) -> list[int]:
        count = len(self.alphas)
        return [i for i in range(count) if i < self.low or i >= count - self.high]

    def ends(self) -> Ends:
        """What is known; where the whole space is smaller than what is wanted, its vectors stand in again."""
        ritz = list(self.vectors.T.to(self.basis) @ self.basis[: len(self.alphas)])
        low, high = ritz[: self.low], ritz[max(0, len(ritz) - self.high) :] if self.high else []
        low += low[-1:] * (self.low - len(low))
        high = high[:1] * (self.high - len(high)) + high
        return Ends(low, high, self.scale)


def _restarted(hessian: Hessian, first: _Iteration, limit: int) -> Ends:
    """ARPACK, from the vectors that the first iteration has found.

    ARPACK measures each residual against its eigenvalue, which never ends for one near 0. It gets H + 2*s, s being the
    largest |eigenvalue| so far: vectors and Krylov space are the same, and all values lie in [s, 3*s].
    """
    linalg, numpy = need("scipy.sparse.linalg"), need("numpy")
    low, high, scale = first.low, first.high, first.scale
    both = bool(low and high)
    count, kind = (2 * max(low, high), "BE") if both else (low + high, "SA" if low else "LA")
    width = min(hessian.size, max(2 * count + 10, LEAST))
    known = first.ends()
    start = torch.stack([*known.low, *known.high]).sum(0)
    first.basis = first.basis[:0]  # its memory is ARPACK's now
    least = float(first.values[first._wanted()].abs().min()) / scale

    def product(x: Any) -> Any:
        v = torch.as_tensor(x.reshape(-1)).to(start)
        return hessian.matvec(v).double().cpu().numpy() + 2 * scale * x.reshape(-1)

    wrapped = linalg.LinearOperator((hessian.size, hessian.size), matvec=product, dtype=numpy.float64)
    rounds = max(1, math.ceil((limit - hessian.products) / (width - count)))
    try:
        values, vectors = linalg.eigsh(
            wrapped,
            k=count,
            which=kind,
            ncv=width,
            v0=start.double().cpu().numpy(),
            tol=first.tol * max(least, FLOOR) / 3,
            maxiter=rounds,
        )
    except linalg.ArpackNoConvergence:
        return known
    ordered = [torch.as_tensor(vectors[:, i].copy()).to(start) for i in values.argsort()]
    return Ends(ordered[:low], ordered[len(ordered) - high :], first.scale)
