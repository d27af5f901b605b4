"""Every start of a landscape at once: flat ones on replicas, curved ones by the Riemannian rule and geoopt."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

import fenland
from fenland.algebra import Leaf, Stacked
from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Problem
from fenland.lab.replicas.rules import rule
from fenland.lab.replicas.trajectories import run
from fenland.lab.replicas.wells import TwoWells
from fenland.rules import Context, Riemannian


def ascent(problem: Problem, method: str, w: Tensor, g: Tensor) -> Tensor:
    """e of radius 1 at points w (R, ...) with Euclidean gradients g, by the preset's ball; not for Riemannian SAM."""
    ball = rule(method.split()[0]).ball
    return ball.steepest(Leaf([g], Stacked()), Context(0, 1.0, [w])).tensors[0]


def mean_length(problem: Problem, method: str, start: Tensor) -> float:
    """Mean Euclidean length of e over the starts (R, ...) at rho = 1: radii divided by it are matched in length."""
    if method == "RSAM":
        return 1.0
    weights = problem.pack(start.reshape(len(start), -1))
    ball = rule(method.split()[0]).ball
    unit = ball.steepest(Leaf(problem.gradient(weights), Stacked()), Context(0, 1.0, weights))
    return float(Stacked().norm(unit.tensors).mean())


def flat_ends(problem: Problem, method: str, rho: float, lr: float, steps: int, start: Tensor) -> tuple[Tensor, Tensor]:
    """Where a method ends, (R, n), and where plain descent then settles, as many steps."""
    plan = grid(problem.pack(start), rho=0.0 if method == "SGD" else rho, lr=lr)
    there = run(problem, method, plan, steps, engine="plain").w
    settled = run(problem, "SGD", grid(there, rho=0.0, lr=lr), steps, engine="plain").w
    return problem.unpack(there), problem.unpack(settled)


def manifold_of(name: str) -> Any:
    """geoopt's manifold with the metric of the space around it: "sphere" or "stiefel"."""
    Riemannian()  # raises the error that names fenland[riemannian]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # geoopt's import uses torch.jit
        import geoopt
    return geoopt.Sphere() if name == "sphere" else geoopt.Stiefel(canonical=False)


def manifold_starts(manifold: Any, shape: tuple[int, ...], count: int, seed: int) -> Tensor:
    """Uniform points (count, *shape) of the manifold."""
    draws = torch.Generator().manual_seed(seed)
    points: Tensor = manifold.projx(torch.randn(count, *shape, generator=draws, dtype=torch.float64))
    return points


def curved_ends(
    manifold: Any, problem: TwoWells, method: str, rho: float, lr: float, steps: int, start: Tensor
) -> Tensor:
    """Ends (R, ...) of all starts at once, each with a norm of its own; "SGD" is plain Riemannian descent."""
    param = _on(manifold, start)
    w = start
    with torch.no_grad():
        for _ in range(steps):
            d = _direction(manifold, problem, method, rho, w, param)
            w = manifold.retr(w, -lr * manifold.egrad2rgrad(w, d))
    return w


def _direction(manifold: Any, problem: TwoWells, method: str, rho: float, w: Tensor, param: Tensor) -> Tensor:
    """What the base gets; as the optimizer's step, with a norm a replica."""
    g = problem.gradient([w])[0]
    if method == "SGD":
        return g
    if method == "RSAM":
        geometry = Riemannian().geometry
        r = geometry.tangent(g, w, param)
        length = r.reshape(len(r), -1).norm(dim=1).clamp_min(1e-300).reshape(-1, *(1,) * (r.dim() - 1))
        there = geometry.retract(w, rho * r / length, param)
        return geometry.transport(problem.gradient([there])[0], there, w, param)
    there = w + rho * ascent(problem, method, w, g)
    if method.endswith("retracted"):
        there = manifold.projx(there)
    return problem.gradient([there])[0]


def optimizer_ends(manifold: Any, problem: TwoWells, rho: float, lr: float, steps: int, start: Tensor) -> Tensor:
    """Ends of `fenland.RiemannianSAM` over geoopt's RiemannianSGD, one start after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import geoopt
    ends = []
    for row in start:
        w = _on(manifold, row.clone())
        opt = fenland.RiemannianSAM(geoopt.optim.RiemannianSGD([w], lr=lr), rho=rho)

        def closure(opt: Any = opt, w: Tensor = w) -> Tensor:
            opt.zero_grad()
            loss = problem.value([w[None]])[0]
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(steps):
            opt.step(closure)
        ends.append(w.detach())
    return torch.stack(ends)


def _on(manifold: Any, points: Tensor) -> Tensor:
    """A parameter that says which manifold it lives on."""
    import geoopt

    param: Tensor = geoopt.ManifoldParameter(points, manifold=manifold)
    return param
