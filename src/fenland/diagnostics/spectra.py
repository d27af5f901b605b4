"""Numerics on a Hessian operator: the matrix itself, traces, quadrature of the spectrum."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fenland.arguments import installing
from fenland.diagnostics.hessian import Hessian

BLOCK = 8  # vectors that share a pass over the data


def need(module: str) -> Any:
    """Import a library of the lab extra.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed here: {installing('lab')}") from error


def draws(hessian: Hessian, seed: int) -> Callable[[], Tensor]:
    """A source of random vectors with entries +1 and -1 that leaves the global generators alone."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: hessian.flat.signs(generator)


def matrix(hessian: Hessian) -> Tensor:
    """H itself, shape (size, size), float64 and symmetric: one product a column."""
    unit = torch.eye(hessian.size, dtype=hessian.dtype, device=hessian.device)
    columns: list[Tensor] = []
    for start in range(0, hessian.size, BLOCK):
        columns += hessian.matvecs(list(unit[start : start + BLOCK]))
    full = torch.stack(columns).double().cpu()
    return (full + full.T) / 2


def hutchinson(hessian: Hessian, count: int, seed: int) -> tuple[float, float]:
    """Trace and its standard error from `count` draws; `BLOCK` draws share a pass over the data."""
    draw = draws(hessian, seed)
    samples: list[float] = []
    while len(samples) < count:
        vs = [draw() for _ in range(min(BLOCK, count - len(samples)))]
        samples += [float(v @ x) for v, x in zip(vs, hessian.matvecs(vs), strict=True)]
    return _mean_and_error(torch.tensor(samples, dtype=torch.float64, device="cpu"))


def hutch_plus_plus(hessian: Hessian, count: int, seed: int) -> tuple[float, float]:
    """Trace and its standard error: exact on a sketched subspace of count / 3 dimensions, Hutchinson on the rest.

    Source: Meyer, Musco, Musco, Woodruff 2021, arXiv 2010.09649, algorithm 1.
    """
    third = max(1, count // 3)
    draw = draws(hessian, seed)
    sketch = torch.stack(_products(hessian, [draw() for _ in range(third)]), dim=1)
    q = torch.linalg.qr(sketch)[0]
    columns = list(q.T)
    known = sum(float(v @ x) for v, x in zip(columns, _products(hessian, columns), strict=True))
    rest = [g - q @ (q.T @ g) for g in (draw() for _ in range(max(2, count - 2 * third)))]
    samples = [float(v @ x) for v, x in zip(rest, _products(hessian, rest), strict=True)]
    mean, error = _mean_and_error(torch.tensor(samples, dtype=torch.float64, device="cpu"))
    return known + mean, error


def _products(hessian: Hessian, vs: list[Tensor]) -> list[Tensor]:
    return [x for i in range(0, len(vs), BLOCK) for x in hessian.matvecs(vs[i : i + BLOCK])]


def _mean_and_error(samples: Tensor) -> tuple[float, float]:
    return float(samples.mean()), float(samples.std() / len(samples) ** 0.5)


def quadrature(hessian: Hessian, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of one random vector's Lanczos quadrature, float64, each of shape (<= steps,).

    The Lanczos iteration is that of hessian-eigenthings, with full reorthogonalisation. Source: Ubaru, Chen, Saad 2017,
    SIAM J. Matrix Anal. Appl. 38(4).
    """
    lanczos = need("hessian_eigenthings.algorithms.lanczos")
    start = draws(hessian, seed)()
    found = lanczos.lanczos_tridiagonal(hessian, start, min(steps, hessian.size), reorthogonalize=True)
    off = found.betas[: len(found.alphas) - 1].double().cpu()
    tridiagonal = torch.diag(found.alphas.double().cpu()) + torch.diag(off, 1) + torch.diag(off, -1)
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    return nodes, vectors[0].square()
