"""What the explorer shows, measured: trajectories with their ascent points, and what becomes of many starts.

Everything is stepped by `fenland.lab.replicas`, that is by the optimizer's own rules. The ascent points are the points
at which those rules ask for a gradient: a recorder stands between the rules and the function and writes them down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fenland.algebra import Vector
from fenland.lab.explore.landscapes import MOMENTA, Landscape, Point
from fenland.lab.replicas import Grid, Problem, grid, run
from fenland.theory import spectrum_limit

METHODS = ("SGD", "SAM", "USAM", "SSAM", "SSAM-U")
NORMALIZED = ("SAM", "SSAM")
SHOWN = 80  # steps of a drawn trajectory
STARTS = 512  # of each share and limit
_BOUND = 1e6
_NEAR = 1e-3  # starts beside a minimum or saddle, in halves of the window
_SADDLE_STEPS = 100
_LIMIT_STEPS, _HALVINGS = 120, 8
_BRACKET = (1 / 50, 1.5)  # where a limit is looked for, in units of SGD's own


@dataclass(frozen=True)
class Measured:
    """One method on one landscape. Axes: rho (one value for SGD), lr, momentum; then start, step, coordinate.

    Attributes:
        path: w_t, t = 0..SHOWN, shape (rho, lr, momentum, start, step, 2).
        ascent: w_t + e_t, the same shape; None for SGD.
        success: share of STARTS random starts that end within the tolerance of a minimum (rho, lr, momentum).
        distance: median distance of these to the nearest minimum at the end; inf where most are lost.
        held: share of STARTS starts beside the saddle that it holds; None where there is none.
        limit: largest learning rate at which at least half of STARTS starts beside a minimum stay (rho, momentum); nan
            where there is none in the range searched.
    """

    path: Tensor
    ascent: Tensor | None
    success: Tensor
    distance: Tensor
    held: Tensor | None
    limit: Tensor


@dataclass(frozen=True, eq=False)
class _Recorder(Problem):
    """A problem that keeps every point at which its gradient was asked for."""

    of: Problem
    asked: list[Tensor]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each weight."""
        return self.of.shapes

    def value(self, w: Vector) -> Tensor:
        """f(w)."""
        return self.of.value(w)

    def gradient(self, w: Vector) -> Vector:
        """grad f(w), and w is kept."""
        self.asked.append(self.of.unpack(w))
        return self.of.gradient(w)


def measure(landscape: Landscape, method: str) -> Measured:
    """Everything about one method on one landscape."""
    radii = radii_of(landscape, method)
    path, ascent = trajectories(landscape, method, radii)
    success, distance = _shares(landscape, method, radii)
    held = _held(landscape, method, radii) if landscape.saddle is not None else None
    return Measured(path, ascent, success, distance, held, _limits(landscape, method, radii))


def radii_of(landscape: Landscape, method: str) -> tuple[float, ...]:
    """The radii to choose from; SGD has none."""
    return (0.0,) if method == "SGD" else landscape.radii


def trajectories(landscape: Landscape, method: str, radii: Sequence[float]) -> tuple[Tensor, Tensor | None]:
    """(w_t, w_t + e_t) from every start of the landscape; the second is None for SGD, which asks at w alone."""
    problem = _Recorder(landscape.problem, [])
    given = _grid(landscape, radii, torch.tensor(landscape.starts, dtype=torch.float64))
    run(problem, method, given, SHOWN + 1, bound=_BOUND, engine="plain")
    each, rest = divmod(len(problem.asked), SHOWN + 1)
    if rest or each != (1 if method == "SGD" else 2):
        raise RuntimeError(f"{method}: {len(problem.asked)} gradients in {SHOWN + 1} steps; a step asks at w and w+e")
    first, *second = (torch.stack(problem.asked[k::each], 1).reshape(*given.shape, SHOWN + 1, 2) for k in range(each))
    return first, second[0] if second else None


def _shares(landscape: Landscape, method: str, radii: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(share that reaches a minimum, median distance at the end)."""
    x0, x1, y0, y1 = landscape.window
    low, high = torch.tensor([x0, y0], dtype=torch.float64), torch.tensor([x1, y1], dtype=torch.float64)
    points = low + (high - low) * torch.rand(STARTS, 2, dtype=torch.float64, generator=_draws(0))
    given = _grid(landscape, radii, points)
    out = run(landscape.problem, method, given, landscape.steps, bound=_BOUND, engine="plain")
    far = _distance(landscape.problem.unpack(out.w), landscape.minima)
    far = torch.where(out.lost < 0, far, math.inf).reshape(given.shape)
    return (far <= landscape.tolerance).to(torch.float64).mean(-1), far.median(-1).values


def _held(landscape: Landscape, method: str, radii: Sequence[float]) -> Tensor:
    """Share of the starts beside the saddle that are no farther along its descending direction in the end.

    The normalised ascent wanders within rho of a saddle that holds it, so that for it rho is far.
    """
    assert landscape.saddle is not None
    centre = torch.tensor(landscape.saddle, dtype=torch.float64)
    _, directions = torch.linalg.eigh(landscape.hessian(landscape.saddle))
    points = _beside(landscape, centre)
    given = _grid(landscape, radii, points)
    out = run(landscape.problem, method, given, _SADDLE_STEPS, bound=_BOUND, engine="plain")
    end = ((landscape.problem.unpack(out.w) - centre) @ directions[:, 0]).abs().reshape(given.shape)
    begin = ((points - centre) @ directions[:, 0]).abs()
    allowed = torch.maximum(begin, given.rho.reshape(given.shape)) if method in NORMALIZED else begin
    held = (end <= allowed) & (out.lost < 0).reshape(given.shape)
    shares: Tensor = held.to(torch.float64).mean(-1)
    return shares


def _limits(landscape: Landscape, method: str, radii: Sequence[float]) -> Tensor:
    """The largest learning rate that at least half of the starts beside a minimum can take, by halving an interval.

    All but SAM must end nearer to the minimum than they began. SAM circles: it must end within `home`.
    """
    minimum = landscape.minima[0]
    points = _beside(landscape, torch.tensor(minimum, dtype=torch.float64))
    begin = _distance(points, (minimum,))
    curvatures = landscape.curvatures(minimum)
    shape = len(radii), len(MOMENTA)
    limits = [[spectrum_limit(curvatures, 0.0, "SGD", momentum).lr for momentum in MOMENTA]] * len(radii)
    top = torch.tensor(limits, dtype=torch.float64)
    low, high = top * _BRACKET[0], top * _BRACKET[1]

    def stays(rates: Tensor) -> Tensor:
        whole = grid(landscape.problem.pack(points), rho=radii, lr=1.0, momentum=MOMENTA)
        each = rates[:, None, :, None].expand(whole.shape).reshape(-1)
        given = Grid(whole.rho, each.clone(), whole.momentum, whole.start, whole.shape)
        out = run(landscape.problem, method, given, _LIMIT_STEPS, bound=_BOUND, engine="plain")
        far = _distance(landscape.problem.unpack(out.w), (minimum,)).reshape(*shape, STARTS)
        near = far <= landscape.home if method == "SAM" else far <= begin
        return (near & (out.lost < 0).reshape(near.shape)).to(torch.float64).mean(-1) >= 0.5

    sound = stays(low) & ~stays(high)
    for _ in range(_HALVINGS):
        middle = (low * high).sqrt()
        fine = stays(middle)
        low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
    return torch.where(sound, (low * high).sqrt(), math.nan)


def _grid(landscape: Landscape, radii: Sequence[float], points: Tensor) -> Grid:
    return grid(landscape.problem.pack(points), rho=radii, lr=landscape.rates, momentum=MOMENTA)


def _beside(landscape: Landscape, centre: Tensor) -> Tensor:
    """STARTS points around one, normally spread."""
    half = min(landscape.window[1] - landscape.window[0], landscape.window[3] - landscape.window[2]) / 2
    return centre + _NEAR * half * torch.randn(STARTS, 2, dtype=torch.float64, generator=_draws(1))


def _distance(points: Tensor, targets: Sequence[Point]) -> Tensor:
    """Euclidean distance to the nearest target."""
    gaps = [torch.linalg.vector_norm(points - torch.tensor(t, dtype=torch.float64), dim=-1) for t in targets]
    return torch.stack(gaps).min(0).values


def _draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
