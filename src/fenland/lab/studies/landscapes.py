"""Which relative of SAM reaches the flatter of two minima, on landscapes whose curvature is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from torch import Tensor

from fenland.lab.errors import BadInput
from fenland.lab.studies.landscapes_designs import Hyperbola, TwoWells, on_sphere, on_stiefel, valley
from fenland.lab.studies.landscapes_runs import (
    CURVED,
    FLAT,
    curved_ends,
    flat_ends,
    manifold_of,
    manifold_starts,
    mean_length,
    optimizer_ends,
)
from fenland.lab.studies.landscapes_verdicts import judge
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict

if TYPE_CHECKING:
    from fenland.lab.figures.catalog import Drawn

MANIFOLDS = ("sphere", "stiefel")
ON_CURVE = 0.02  # |u*v - 1| of an end that has come to the curve of minima


@dataclass(frozen=True)
class LandscapesConfig:
    """What is run.

    Attributes:
        sharp: curvature of the sharp well (loss / w^2), of its steepest direction.
        flat: of the flat well.
        anisotropies: of the valleys: how much steeper across than along.
        lengths: mean Euclidean lengths of e over the starts, the same for every method (w).
        starts: of each landscape.
        lr: learning rate.
        steps: of the method; as many of plain descent follow, to see whose minimum it is.
        n: rows of w on the manifolds.
        p: columns on Stiefel's.
        seed: of the starts.
    """

    sharp: float = 20.0
    flat: float = 5.0
    anisotropies: tuple[float, ...] = (1.0, 10.0)
    lengths: tuple[float, ...] = (0.3, 0.7, 1.1)
    starts: int = 1000
    lr: float = 0.02
    steps: int = 150
    n: int = 4
    p: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sharp > self.flat > 0:
            raise BadInput("sharp, flat", (self.sharp, self.flat), "give sharp > flat > 0")
        if not 0 < self.lr * self.sharp < 2:
            raise BadInput("lr", self.lr, "give lr < 2 / sharp: beyond, the sharp well throws everyone out")


class Landscapes(Study[LandscapesConfig]):
    """The study `landscapes`."""

    name: ClassVar[str] = "landscapes"
    title: ClassVar[str] = "Who reaches the flatter minimum: SAM, ASAM, Fisher-SAM, Riemannian SAM"
    source: ClassVar[str] = "stated future work of Investigations on Sharpness-Aware Minimization; the designs are ours"
    question: ClassVar[str] = (
        "Does the ball's geometry matter for which of two known minima is reached, on flat and on curved spaces?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "Valleys: the softened lower one of two paraboloids of equal depth, curvatures 20 and 5 by default, round or "
        "ten times steeper across than along; their centres are as far from the origin, so ASAM's |w| has no side.",
        "A curve of minima u*v = 1 of curvature u^2 + v^2, where a method must walk along the valley to get flatter.",
        "Sphere and Stiefel: the same wells at opposite points, whose Riemannian curvature is theirs exactly.",
        "Radii are matched: every method has the same mean Euclidean length of e over the starts. One radius for all "
        "would compare units, not shapes.",
        "After the method plain descent settles: where it ends is the minimum that was reached.",
        "Fisher-SAM and ASAM with the presets' own eta (1 and 0.01). On manifolds SAM, ASAM and Fisher-SAM ascend in "
        "the space around; their point is left off the manifold (projected) or, for SAM, also taken back (retracted).",
    )
    presets: Mapping[str, LandscapesConfig] = {
        "quick": LandscapesConfig(),
        "paper": LandscapesConfig(
            starts=10_000, lengths=(0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.1, 1.5), anisotropies=(1.0, 3.0, 10.0, 30.0),
            steps=1000,
        ),
    }  # fmt: skip

    def run(self, config: LandscapesConfig, lab: Lab) -> Tables:
        """Ends of every start, and how far the batched Riemannian step is from the optimizer's."""
        for name in MANIFOLDS:
            manifold_of(name)  # without geoopt: say so before anything is computed
        jobs = [(design, method) for design in designs(config) for method in methods(design)]
        pieces = [
            Piece(
                "ends", {**asdict(config), "design": design, "method": method}, partial(_ends, config, design, method)
            )
            for design, method in jobs
        ]
        parts = [
            part.assign(design=design, method=method)
            for (design, method), part in zip(jobs, lab.keep_all(pieces, "landscapes"), strict=True)
        ]
        return {"ends": pd.concat(parts, ignore_index=True), "agreement": _agreement(config)}

    def figures(self, config: LandscapesConfig, tables: Tables) -> list[Drawn]:
        """The designs, shares against length, and curvature on the curved valley."""
        from fenland.lab.studies.landscapes_figures import draw

        return draw(config, tables)

    def verdicts(self, config: LandscapesConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        return judge(tables)


def designs(config: LandscapesConfig) -> dict[str, TwoWells | Hyperbola]:
    """Every landscape by name."""
    found: dict[str, TwoWells | Hyperbola] = {
        f"valley {a:g}": valley(config.sharp, config.flat, a) for a in config.anisotropies
    }
    found["hyperbola"] = Hyperbola()
    found["sphere"] = on_sphere(config.sharp, config.flat, config.n)
    found["stiefel"] = on_stiefel(config.sharp, config.flat, config.n, config.p)
    return found


def methods(design: str) -> tuple[str, ...]:
    """Those that run on a landscape."""
    return CURVED if design in MANIFOLDS else FLAT


def _starts(config: LandscapesConfig, design: str) -> Tensor:
    """Uniform: in a box around both wells, in (0.3, 3)^2 for the curve, on the manifold."""
    if design in MANIFOLDS:
        shape = (config.n,) if design == "sphere" else (config.n, config.p)
        return manifold_starts(manifold_of(design), shape, config.starts, config.seed)
    unit = torch.rand(config.starts, 2, generator=torch.Generator().manual_seed(config.seed), dtype=torch.float64)
    if design == "hyperbola":
        return 0.3 + 2.7 * unit
    return (2 * unit - 1) * torch.tensor([3.0, 1.5], dtype=torch.float64)


def _ends(config: LandscapesConfig, design: str, method: str) -> pd.DataFrame:
    """Rows ``length, rho, start, score, held``.

    score: 1 in the flat well and 0 in the sharp one, or the curvature on the curve (NaN off it). held: still on the
    ridge between the wells when the method's own steps end (q_sharp and q_flat within a factor of 2), or never come to
    the curve.
    """
    problem, start = designs(config)[design], _starts(config, design)
    unit = 1.0 if method == "SGD" else mean_length(problem, method, start)
    rows = []
    for length in (0.0,) if method == "SGD" else config.lengths:
        rho = length / unit
        if design in MANIFOLDS and isinstance(problem, TwoWells):
            given = (manifold_of(design), problem, method, rho, config.lr, config.steps, start)
            before = curved_ends(*given)
            end = curved_ends(given[0], problem, "SGD", 0.0, config.lr, config.steps, before)
        else:
            before, end = flat_ends(problem, method, rho, config.lr, config.steps, start)
        if isinstance(problem, Hyperbola):
            held = (end.prod(1) - 1).abs() > ON_CURVE
            score = problem.curvature(end).masked_fill(held, torch.nan)
        else:
            held, score = problem.on_ridge(before), problem.in_flat(end).to(torch.float64)
        numbers = pd.RangeIndex(len(start)).to_numpy()
        rows.append(
            pd.DataFrame({"length": length, "rho": rho, "start": numbers, "score": score.numpy(), "held": held.numpy()})
        )
    return pd.concat(rows, ignore_index=True)


def _agreement(config: LandscapesConfig, count: int = 3, steps: int = 20) -> pd.DataFrame:
    """Largest difference between the batched Riemannian step and the optimizer's, on a few starts."""
    rows = []
    for name in MANIFOLDS:
        manifold, problem, start = manifold_of(name), designs(config)[name], _starts(config, name)[:count]
        if isinstance(problem, TwoWells):
            rho = config.lengths[0]
            real = optimizer_ends(manifold, problem, rho, config.lr, steps, start)
            ours = curved_ends(manifold, problem, "RSAM", rho, config.lr, steps, start)
            rows.append({"design": name, "starts": count, "steps": steps, "gap": float((real - ours).abs().max())})
    return pd.DataFrame(rows)
