"""The toy problems of Kim et al., arXiv 2301.06308, at the settings of the authors' code, and their theorems as tables.

The code: github.com/Harry24k/sam-saddle. Tables are long: one row a method, radius and step or seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from fenland import theory
from fenland.algebra import Stacked, Vector
from fenland.lab.replicas.grids import grid
from fenland.lab.replicas.problems import Beale, Problem, Quadratic, Saddle
from fenland.lab.replicas.rules import Rule, rule
from fenland.lab.replicas.toys import SquareNeuron
from fenland.lab.replicas.trajectories import Noise, run
from fenland.theory.diffusion import Dynamics

BEALE_START = (1.0, 2.0)
SADDLE_START = (-3.0, -0.01)
# The demo on x^2 - y^2 leaves pass 1's gradient in place, so that it steps by g + h: GNP's half of each, twice as long.
DEMO = "SAM, as the demo steps (g + h)"
NORMALISED = ("SAM", "SSAM", DEMO)
NEAR = 0.1  # of a saddle, where a trajectory counts as there
MODELS: tuple[Dynamics, ...] = ("full", "shared", "independent", "descent")
VALLEY = 0.55  # of the minimum, as the authors' code has it
SOLVED = 0.05  # of the loss that the square neuron has without an output, below or around which a seed is counted


@dataclass(frozen=True)
class Walk:
    """How one problem is stepped."""

    problem: Problem  # the function
    start: tuple[float, ...]  # its coordinates
    lr: float  # eta
    steps: int  # taken
    every: int  # steps between two rows
    bound: float | None = None  # |w| beyond which a trajectory is lost, and left where it is


def beale(lr: float, steps: int, every: int) -> Walk:
    """Beale's function from the paper's start."""
    return Walk(Beale(), BEALE_START, lr, steps, every, 1e3)


def square_saddle(steps: int = 500, every: int = 2) -> Walk:
    """x^2 - y^2 from the demo's start, with its learning rate, as far as its plot reaches."""
    return Walk(Saddle(), SADDLE_START, 0.01, steps, every, 4.5)


def follow(walk: Walk, method: str, rhos: Sequence[float]) -> pd.DataFrame:
    """Trajectories: ``method, rho, lr, step, x, y, f, cosine, lost``; ``lost`` is the step that left the bound, or -1.

    ``cosine`` is that of g at w and h at the ascent point, NaN where one of them is 0 or there is no ascent.
    """
    demo = method == DEMO
    chosen: str | Rule = rule("GNP", alpha=0.5) if demo else method
    start = walk.problem.pack(torch.tensor([walk.start], dtype=torch.float64))
    given = grid(start, rho=rhos, lr=2 * walk.lr if demo else walk.lr)
    out = run(walk.problem, chosen, given, walk.steps, bound=walk.bound, sample_every=walk.every, engine="plain")
    tables = []
    for place, rho in enumerate(rhos):
        w = [x[:, place] for x in out.samples]
        tables.append(
            pd.DataFrame({
                "method": method, "rho": float(rho), "lr": walk.lr, "step": out.sampled,
                "x": w[0].numpy(), "y": w[1].numpy(), "f": walk.problem.value(w).numpy(),
                "cosine": _cosine(walk.problem, w, rho, method in NORMALISED).numpy(), "lost": int(out.lost[place]),
            })
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def _cosine(problem: Problem, w: Vector, rho: float, normalised: bool) -> Tensor:
    V = Stacked()
    g = problem.gradient(w)
    length = V.norm(g)
    scale = rho / length if normalised else torch.full_like(length, rho)
    h = problem.gradient(V.axpy(scale, g, w))
    cosine: Tensor = V.dot(g, h) / (length * V.norm(h))
    return cosine.clamp(-1.0, 1.0) if rho else torch.full_like(length, torch.nan)


def ends(paths: pd.DataFrame, places: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """The last row of every trajectory with ``where`` it is: one of ``places``, "lost", "on the way".

    Within `NEAR`, or within `VALLEY` of the place called "minimum".
    """
    keys = ["method", "rho", "lr"]
    last = paths.groupby(keys, sort=False).tail(1)

    def place(row: pd.Series) -> str:
        if row["lost"] >= 0:
            return "lost"
        far = {name: ((row["x"] - x) ** 2 + (row["y"] - y) ** 2) ** 0.5 for name, (x, y) in places.items()}
        close = [name for name, distance in far.items() if distance < (VALLEY if name == "minimum" else NEAR)]
        return close[0] if close else "on the way"

    return last.assign(where=last.apply(place, axis=1)).reset_index(drop=True)


def square_net(
    method: str, rhos: Sequence[float], lr: float, steps: int, seeds: int, std: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Where seeds of the two-layer network of one neuron x^2 end: ``method, rho, std, start, u, v, f, where``.

    Weights start uniform in [-1, 1], as torch draws them for one input, the same for every method. ``start`` is the
    sign of v there. v*u^2 = 1 are the minima. For v > 0 the critical line u = 0 consists of saddles; a start with v < 0
    reaches that line by plain descent, where it is a valley of the same loss. ``where`` is "minimum", "saddle" (the
    loss of u = 0) or "elsewhere".

    Args:
        method: a preset's name or "SGD".
        rhos: radii.
        lr: eta.
        steps: taken.
        seeds: number of starts.
        std: of normal noise on the gradients, the same draw in both passes as of a mini-batch; 0 for full batches.
        seed: of starts and noise.
    """
    problem = SquareNeuron()
    draws = torch.Generator().manual_seed(seed)
    starts = 2 * torch.rand(seeds, 2, generator=draws, dtype=torch.float64) - 1
    noise = Noise(std, "shared", seed) if std else None
    given = grid(problem.pack(starts), rho=rhos, lr=lr)
    out = run(problem, method, given, steps, noise=noise, bound=1e3, engine="plain")
    flat, f = problem.moment / 2, problem.value(out.w)
    where = torch.full_like(f, 2.0)
    where[(f - flat).abs() < 2 * SOLVED * flat] = 1.0
    where[f < SOLVED * flat] = 0.0
    where[out.lost >= 0] = 2.0
    return pd.DataFrame({
        "method": method, "rho": given.rho.numpy(), "std": std, "start": ["v > 0" if v > 0 else "v < 0"
        for v in starts[:, 1].tolist()] * len(rhos), "u": out.w[0].numpy(), "v": out.w[1].numpy(), "f": f.numpy(),
        "where": [("minimum", "saddle", "elsewhere")[int(x)] for x in where.tolist()],
    })  # fmt: skip


def displacements(
    rhos: Sequence[float], lr: float, batch: float, steps: int, paths: int, seed: int = 0
) -> pd.DataFrame:
    """MSD at a saddle of l = -1 after ``steps`` from rest: ``model, rho, printed, exact, measured, error``.

    ``model`` is one of `MODELS`; ``printed`` is Theorem 2, ``exact`` the discrete sum, ``measured``
    the mean over normal paths with its standard error. "full" steps along the gradient of L(w + rho*grad L(w)).
    """
    std, rows = batch**-0.5, []
    start = [torch.zeros(paths, dtype=torch.float64)]
    for rho in rhos:
        printed = theory.published_displacement(-1.0, lr, rho, batch, lr * steps)
        for model in MODELS:
            full = model == "full"
            problem = Quadratic((theory.drift(-1.0, rho, "full") if full else -1.0,))
            noise = Noise(std, "shared" if model == "full" else model, seed)
            given = grid(start, rho=0.0 if full else rho, lr=lr)
            w = run(problem, "SGD" if full else "USAM", given, steps, noise=noise, engine="plain").w[0].square()
            exact = theory.displacement(-1.0, lr, rho, std, steps, model)
            rows.append([model, rho, printed, exact, w.mean().item(), w.std().item() / paths**0.5])
    return pd.DataFrame(rows, columns=["model", "rho", "printed", "exact", "measured", "error"])


def momentum_map(momentum: float, scaled: Sequence[float], reaches: Sequence[float]) -> pd.DataFrame:
    """Theorem 3 over the exact MSD: ``sign, scaled, reach, ratio``; see `theory.momentum_ratio`."""
    rows = [
        [sign, x, s, theory.momentum_ratio(x, s, momentum, sign)] for sign in (-1, 1) for x in scaled for s in reaches
    ]
    return pd.DataFrame(rows, columns=["sign", "scaled", "reach", "ratio"])
