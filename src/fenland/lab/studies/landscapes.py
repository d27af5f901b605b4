"""Which relative of SAM reaches the flatter of two minima, on landscapes whose curvature is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fenland.lab.errors import BadInput
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.landscape import Spot, draw_landscape
from fenland.lab.figures.plots import Line, Mark, Panel
from fenland.lab.figures.style import SMALL, Canvas, blanks
from fenland.lab.replicas.manifolds import (
    curved_ends,
    flat_ends,
    manifold_of,
    manifold_starts,
    mean_length,
    optimizer_ends,
)  # fmt: skip
from fenland.lab.replicas.wells import Hyperbola, TwoWells, on_sphere, on_stiefel, valley
from fenland.lab.studies.landscapes_claims import claims, flat, title
from fenland.lab.study import Lab, Measured, Piece, Plot, Source, Study, Tables
from fenland.lab.study.recipes import joined
from fenland.lab.study.rows import gathered
from fenland.lab.study.words import by

MANIFOLDS = {"sphere": "sphere", "stiefel": "Stiefel"}
FLAT = ("SGD", "SAM", "ASAM", "FisherSAM")
# Beside Riemannian SAM: the ascent of the flat space, only its gradient "projected", or its point "retracted".
CURVED = ("SGD", "RSAM", "SAM projected", "SAM retracted", "ASAM projected", "FisherSAM projected")
ON_CURVE = 0.02  # |u*v - 1| of an end on the curve of minima
LENGTH = "mean length of e over the starts"


@dataclass(frozen=True)
class Config:
    """What is run."""

    sharp: float = 20.0  # curvature of the sharp well (loss / w^2), of its steepest direction
    flat: float = 5.0  # of the flat well
    anisotropies: tuple[float, ...] = (1.0, 10.0)  # of the valleys: how much steeper across than along
    # mean Euclidean lengths of e over the starts, the same for every method (w)
    lengths: tuple[float, ...] = (0.3, 0.7, 1.1)
    starts: int = 1000  # of each landscape
    lr: float = 0.02  # learning rate
    steps: int = 150  # of the method; as many of plain descent follow, to see whose minimum it is
    n: int = 4  # rows of w on the manifolds
    p: int = 2  # columns on Stiefel's
    seed: int = 0  # of the starts

    def __post_init__(self) -> None:
        if not self.sharp > self.flat > 0:
            raise BadInput("sharp, flat", (self.sharp, self.flat), "give sharp > flat > 0")
        if not 0 < self.lr * self.sharp < 2:
            raise BadInput("lr", self.lr, "give lr < 2 / sharp: beyond, the sharp well throws everyone out")


def measure(config: Config, lab: Lab) -> Tables:
    """Ends of every start, and how far the batched Riemannian step is from the optimizer's."""
    for name in MANIFOLDS:
        manifold_of(name)  # without geoopt: say so before anything is computed
    plans = [{"design": each, "method": method} for each in designs(config) for method in methods(each)]
    pieces = [Piece("ends", {**asdict(config), **plan}, partial(_ends, config, **plan)) for plan in plans]
    return gathered(lab, pieces, "landscapes", "design", "method") | {"agreement": _agreement(config)}


def designs(config: Config) -> dict[str, TwoWells | Hyperbola]:
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


def _starts(config: Config, design: str) -> Tensor:
    """Uniform: in a box around both wells, in (0.3, 3)^2 for the curve, on the manifold."""
    if design in MANIFOLDS:
        shape = (config.n,) if design == "sphere" else (config.n, config.p)
        return manifold_starts(manifold_of(design), shape, config.starts, config.seed)
    unit = torch.rand(config.starts, 2, generator=torch.Generator().manual_seed(config.seed), dtype=torch.float64)
    if design == "hyperbola":
        return 0.3 + 2.7 * unit
    return (2 * unit - 1) * torch.tensor([3.0, 1.5], dtype=torch.float64)


def _ends(config: Config, design: str, method: str) -> pd.DataFrame:
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


def _agreement(config: Config) -> pd.DataFrame:
    """Largest difference between the batched Riemannian step and the optimizer's, on a few starts."""
    rows, count, steps = [], 3, 20
    for name in MANIFOLDS:
        manifold, problem, start = manifold_of(name), designs(config)[name], _starts(config, name)[:count]
        if isinstance(problem, TwoWells):
            rho = config.lengths[0]
            real = optimizer_ends(manifold, problem, rho, config.lr, steps, start)
            ours = curved_ends(manifold, problem, "RSAM", rho, config.lr, steps, start)
            rows.append({"design": name, "starts": count, "steps": steps, "gap": float((real - ours).abs().max())})
    return pd.DataFrame(rows)


def shares(chosen: Callable[[str], bool]) -> Callable[[Measured], list[Panel]]:
    """Shares against length, a panel a landscape."""

    def words(design: str) -> str:
        steeper = design.removeprefix("valley ")
        return MANIFOLDS.get(design, "round wells" if steeper == "1" else f"valley, {steeper} times steeper across")

    def panels(measured: Measured) -> list[Panel]:
        found = []
        for design, rows in by(measured["ends"], "design"):
            if chosen(str(design)):
                lines = [
                    joined(title(method), {x: flat(cell) for x, cell in part.groupby("length")})
                    for method, part in by(rows, "method")
                    if method != "SGD"
                ]
                marks = [Mark(flat(rows[rows["method"] == "SGD"]).mean, "descent", "y")]
                found.append(Panel(lines, LENGTH, words(str(design)), marks=marks))
        return found

    return panels


def curvature(measured: Measured) -> list[Panel]:
    """Median curvature reached on the curve, by length."""
    ends = measured["ends"]
    lines, marks = [], [Mark(2.0, "flattest, 2", "y")]
    for method, part in by(ends[ends["design"] == "hyperbola"], "method"):
        q = part.groupby("length")["score"].quantile(np.array([0.25, 0.5, 0.75])).unstack()
        if method == "SGD":
            marks.append(Mark(float(q[0.5].iloc[0]), "descent", "y"))
        else:
            lines.append(Line(title(method), q.index, q[0.5], q[0.25], q[0.75], "joined"))
    return [Panel(lines, LENGTH, marks=marks)]


def maps(measured: Measured) -> Drawn:
    """The flat designs."""
    config, heading = measured.config, "The flat designs, lines of equal loss"
    bounds = (-3.0, 3.0, -1.5, 1.5)
    ends = (config.anisotropies[0], config.anisotropies[-1])
    problems: list[tuple[str, Any, Any]] = [
        (f"anisotropy {a:g}", valley(config.sharp, config.flat, a), bounds) for a in ends
    ]
    problems.append(("u·v = 1", Hyperbola(), (-0.5, 3.0, -0.5, 3.0)))

    def paint(canvas: Canvas) -> Figure:
        figure, places = blanks(canvas, 3 * 135, 3, 1)
        for axes, (name, problem, (x0, x1, y0, y1)) in zip(places, problems, strict=True):
            x, y = np.linspace(x0, x1, 61), np.linspace(y0, y1, 61)
            points = torch.tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
            values = problem.value(problem.pack(points)).reshape(61, 61).numpy()
            wells = zip(getattr(problem, "centres", ()), ("sharp", "flat"), strict=False)
            spots = [Spot(centre[0], centre[1], label, label) for centre, label in wells]
            draw_landscape(axes, canvas, x, y, values, np.geomspace(0.05, float(values.max()), 12), spots)
            axes.set_title(name, fontsize=SMALL, color=canvas.ink.text, loc="left", pad=3)
        if canvas.titled:
            figure.suptitle(heading, fontsize=SMALL + 1.5, color=canvas.ink.text)
        return figure

    return Drawn(
        "designs", heading,
        "Both wells are 0 deep. On the sphere and on Stiefel's manifold the same wells lie at opposite points.",
        f"Curvatures {config.sharp:g} and {config.flat:g} in the steepest direction.", paint, ("sharp", "flat"),
    )  # fmt: skip


MATCHED = (
    "Radii are matched: at each point of the axis all methods move the same mean Euclidean distance. Bands: 95 % "
    "(Wilson). The line is plain descent from the same starts."
)
STUDY = Study(
    name="landscapes",
    title="Who reaches the flatter minimum: SAM, ASAM, Fisher-SAM, Riemannian SAM",
    source=Source("stated future work of Investigations on Sharpness-Aware Minimization; the designs are ours"),
    question="Does the ball's geometry matter for which of two known minima is reached, on flat and on curved spaces?",
    config=Config,
    paper={
        "starts": 10_000, "lengths": (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.1, 1.5), "anisotropies": (1.0, 3.0, 10.0, 30.0),
        "steps": 1000,
    },
    runs=measure,
    claims=claims,
    figures=[
        Plot("shares", "Share that reaches the flatter of two wells", shares(lambda d: "valley" in d), MATCHED),
        Plot("manifolds", "Share that reaches the flatter well, on manifolds", shares(MANIFOLDS.__contains__),
             MATCHED),
        Plot(
            "curvature", "Curvature reached on the curve u·v = 1", curvature, "Medians over starts, bands from the "
            "lower to the upper quartile. Ends that never came to the curve are left out.",
        ),
        maps,
    ],
    choices=(
        "The valleys are two paraboloids of equal depth, with curvatures 20 and 5 by default, joined by a soft "
        "minimum. They are round, or ten times steeper across than along. Both centres are equally far from the "
        "origin, so ASAM's |w| favours neither.",
        "The hyperbola is a curve of minima u*v = 1 with curvature u^2 + v^2. A method has to move along it to become "
        "flatter.",
        "The sphere and the Stiefel manifold have the same wells at opposite points, with exactly the same Riemannian "
        "curvature.",
        "Radii are matched, so that every method has the same mean Euclidean length of e over the starts. One radius "
        "for all would compare units, not shapes.",
        "After the method has run, plain descent follows; where that ends is the minimum that was reached.",
        "Fisher-SAM and ASAM have the presets' own eta. On manifolds SAM, ASAM and Fisher-SAM ascend in the space "
        "around. The ascent point then stays off the manifold (projected) or, for SAM, is also brought back to it "
        "(retracted).",
    ),
)  # fmt: skip
