"""Extreme eigenvectors of a Hessian operator: Lanczos that looks after every product, then SciPy's restarted one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.diagnostics.flat import length
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
        low: unit vectors of the smallest eigenvalues, ascending.
        high: unit vectors of the largest, ascending.
        scale: the largest |eigenvalue| that was met.
        values: by the identity of a vector, its eigenvalue.
    """

    low: list[Tensor]
    high: list[Tensor]
    scale: float
    values: dict[int, float]

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
        known = dict(zip(map(id, vectors), values.tolist(), strict=True))
        return Ends(vectors[:low], vectors[len(vectors) - high :], float(values.abs().max()), known)
    steps = max(min(STEPS, MEMORY // (hessian.size * 4)), LEAST) + 2 * (low + high)
    draw = draws(hessian, seed)
    first = _Iteration(hessian, draw(), low, high, tol)
    first.run(min(steps, limit, hessian.size))
    done = first.converged or hessian.products >= limit
    found = first.ends() if done else _restarted(hessian, first, limit)
    first.basis = first.basis[:0]  # the memory is another iteration's now
    if max(low, high) > 1:
        found = _with_repeated(hessian, found, low, high, draw, tol, limit)
    # Where the limit left fewer than are wanted, what is known stands in again.
    short_low, short_high = low - len(found.low), high - len(found.high)
    whole_low, whole_high = found.low + found.low[-1:] * short_low, found.high[:1] * short_high + found.high
    return Ends(whole_low, whole_high, found.scale, found.values)


def _with_repeated(
    hessian: Hessian, found: Ends, low: int, high: int, draw: Callable[[], Tensor], tol: float, limit: int
) -> Ends:
    """The same with eigenvalues of several eigenvectors as often as they have, of which one Krylov space sees one each.

    What is orthogonal to the vectors found so far has an end of its own: as long as that lies further out than one of
    these, or one is missing, it takes its place.
    """
    ends, values, scale = {-1: list(found.low), 1: list(found.high)}, dict(found.values), found.scale
    wanted = {-1: low, 1: high}
    while hessian.products < limit:
        away = _orthonormal(ends[-1] + ends[1])
        room = hessian.size - len(away)
        if room < 1:
            break
        rest = _Iteration(hessian, draw(), int(low > 1), int(high > 1), tol, away)
        rest.run(min(STEPS, limit - hessian.products, room))
        changed, scale, beyond = False, max(scale, rest.scale), rest.ends()
        values |= beyond.values
        for side, candidates in ((-1, beyond.low), (1, beyond.high)):
            if not candidates:
                continue
            new, held = candidates[0], ends[side]
            inner = min((side * values[id(v)] for v in held), default=-math.inf)
            allowed = tol * max(abs(values[id(new)]), FLOOR * scale)
            if len(held) < wanted[side] or side * values[id(new)] > inner + allowed:
                kept = sorted([*held, new], key=lambda v: side * values[id(v)])[-wanted[side] :]
                ends[side], changed = kept[::side], True
        if not changed:
            break
    return Ends(ends[-1], ends[1], scale, values)


def _orthonormal(vectors: list[Tensor]) -> Tensor:
    """An orthonormal basis of what they span, (count, size); those that are there already add nothing."""
    basis = vectors[0].new_empty(0, len(vectors[0]))
    for v in vectors:
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        left = float(v.norm())
        if left > 0.1:
            basis = torch.cat([basis, (v / left)[None]])
    return basis


class _Iteration:
    """Lanczos with full reorthogonalisation, stopped as soon as the wanted Ritz values have converged.

    `away` has orthonormal rows, to which everything is kept orthogonal.
    """

    def __init__(
        self, hessian: Hessian, start: Tensor, low: int, high: int, tol: float, away: Tensor | None = None
    ) -> None:
        self.hessian, self.low, self.high, self.tol = hessian, low, high, tol
        self.away = start.new_empty(0, len(start)) if away is None else away
        for _ in range(2 * len(self.away[:1])):
            start = start - self.away.T @ (self.away @ start)
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
                if len(self.away):
                    rest = rest - self.away.T @ (self.away @ rest)
            self.betas.append(length(rest))
            self.converged = self._look()
            if self.converged or step + 1 == steps:
                return
            if step + 1 == len(self.basis):
                room = min(len(self.basis), steps - len(self.basis))
                self.basis = torch.cat([self.basis, self.basis.new_empty(room, len(v))])
            self.basis[step + 1] = rest / self.betas[-1]

    def _look(self) -> bool:
        """Solve the small problem; whether all wanted pairs have converged, or nothing is left to find."""
        off = torch.tensor(self.betas[:-1], dtype=torch.float64, device="cpu")
        small = (
            torch.diag(torch.tensor(self.alphas, dtype=torch.float64, device="cpu"))
            + torch.diag(off, 1)
            + torch.diag(off, -1)
        )
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
        """What is known; fewer than wanted where the whole space is smaller."""
        count = len(self.alphas)
        wanted = self._wanted()
        ritz = list(self.vectors[:, wanted].T.to(self.basis) @ self.basis[:count])
        low = [v for v, i in zip(ritz, wanted, strict=True) if i < self.low]
        high = [v for v, i in zip(ritz, wanted, strict=True) if i >= count - self.high]
        known = {id(v): float(self.values[i]) for v, i in zip(ritz, wanted, strict=True)}
        return Ends(low, high, self.scale, known)


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
        v = torch.from_numpy(x.reshape(-1)).to(start)
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
    order = values.argsort()
    ordered = [torch.from_numpy(vectors[:, i].copy()).to(start) for i in order]
    found = {id(v): float(values[i]) - 2 * scale for v, i in zip(ordered, order, strict=True)}
    return Ends(ordered[:low], ordered[len(ordered) - high :], first.scale, found)
