"""Run a grid of trajectories as one program.

Replicas go in blocks that fit into cache, many steps at a time. The plain engine runs the step eagerly; the compiled
one runs the very same code, several steps of it fused into one loop by `torch.compile`, where a C++ compiler is there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from fenland.algebra import Vector
from fenland.arguments import check_among, check_count, check_positive, check_whole
from fenland.lab.replicas.compiled import CHUNK, compiled_steps
from fenland.lab.replicas.grids import Grid
from fenland.lab.replicas.problems import Problem
from fenland.lab.replicas.rules import Rule, rule
from fenland.lab.replicas.step import Given, Program, State
from fenland.optimizer import SharpnessAware
from fenland.rules import LossBudget

NOISES = ("shared", "independent", "descent")
_BLOCK = 16384  # coordinates of a block: 128 KiB a vector, so that a step's ten or so vectors stay in a core's cache
_LARGER = 8  # compiled steps keep them in registers: a block of 8 hides the call
# Replica-steps from which compiling (10 to 30 s, once a rule and problem) is won back: eager makes some 1e7 a second.
_WORTH = 3e8


@dataclass(frozen=True)
class Noise:
    """Normal noise on gradients, independent between coordinates, replicas and steps.

    Attributes:
        std: its standard deviation (unit of the gradient), a number or one a replica, shape (R,); a batch of B samples
            has std / sqrt(B).
        where: "shared": one draw a step in g and in h, as one mini-batch gives; "independent": a draw for each;
            "descent": in h alone (and in g on steps that do not ascend), so that the ascent is exact.
        seed: of the draws. They follow seed, block and step alone, never the engine or the number of workers.
    """

    std: float | Tensor
    where: Literal["shared", "independent", "descent"] = "shared"
    seed: int = 0

    def __post_init__(self) -> None:
        check_among("where", self.where, NOISES)
        check_whole("seed", self.seed, 0)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the replicas; (R,) tensors reshape to `shape` (radius, learning rate, momentum, start).

    Attributes:
        w: final weights, each (R, *shape).
        first_hit: steps taken when the goal was first met, int64 (R,); 0 at the start, -1 never. None without a goal.
        lost: step (from 1) that was not finite or left the bound, int64 (R,); -1 where all went well. A lost replica
            stays where it was: before a step that is not finite, as the optimizer skips it, or just beyond the bound.
        samples: weights at `sampled`, each (T, R, *shape); empty without sampling.
        sampled: the numbers of steps taken at the samples.
        shape: of the grid.
        engine: "compiled" or "plain".
        seconds: wall time of the steps, compiling included.
    """

    w: Vector
    first_hit: Tensor | None
    lost: Tensor
    samples: Vector
    sampled: list[int]
    shape: tuple[int, ...]
    engine: str
    seconds: float

    def rate(self) -> Tensor:
        """Share of the starts that met the goal, shape (radii, learning rates, momenta)."""
        if self.first_hit is None:
            raise ValueError("rate() needs a goal: run(..., reached=...)")
        return (self.first_hit >= 0).reshape(self.shape).to(torch.float64).mean(-1)


def run(
    problem: Problem,
    method: str | Rule | SharpnessAware,
    grid: Grid,
    steps: int,
    *,
    reached: Callable[[Vector], Tensor] | None = None,
    bound: float | None = None,
    noise: Noise | None = None,
    sample_every: int | None = None,
    engine: Literal["auto", "compiled", "plain"] = "auto",
    threads: int | None = None,
) -> Outcome:
    """Step all replicas of a grid.

    Args:
        problem: the function.
        method: a preset's name, "SGD", a Rule, or an optimizer whose choices are taken.
        grid: radii, learning rates, momenta, starts.
        steps: number of steps.
        reached: the goal, (w) -> bool (R,), such as `near(problem, problem.minima, 1e-3)`.
        bound: ||w||_2 beyond which a replica counts as lost; None: only where gradients are not finite.
        noise: on gradients; None for exact ones.
        sample_every: keep the weights of every such step, and of the start.
        engine: "plain" is eager; "compiled" needs a C++ compiler and a rule whose steps are all alike; "auto" compiles
            elementwise problems where the compiling is won back.
        threads: of the compiled loop; None for torch's own number.

    Raises:
        ValueError: the rule, or the engine asked for, cannot run this; the message says why.
    """
    check_whole("steps", steps, 0)
    check_count("sample_every", sample_every, "never")
    check_positive("bound", bound, "no bound")
    check_among("engine", engine, ("auto", "compiled", "plain"))
    check_count("threads", threads, "torch's own number")
    _check_start(problem, grid)
    program = _program(problem, rule(method), grid, reached, bound, noise)
    fast = _fast(program, grid.replicas * steps, engine, threads or torch.get_num_threads())
    begun = time.perf_counter()
    stops = [*range(0, steps + 1, sample_every)] if sample_every else []
    with torch.no_grad():
        pieces = _pieces(program, grid, noise, fast)
        samples = [_whole(pieces, "w")] if stops else []
        for before, stop in pairwise(stops):
            _advance(pieces, stop - before)
            samples.append(_whole(pieces, "w"))
        _advance(pieces, steps - (stops[-1] if stops else 0))
        return Outcome(
            _whole(pieces, "w"),
            _whole(pieces, "hit")[0].to(torch.int64) if reached is not None else None,
            _whole(pieces, "lost")[0].to(torch.int64),
            [torch.stack(x) for x in zip(*samples, strict=True)],
            stops,
            grid.shape,
            "plain" if fast is None else "compiled",
            time.perf_counter() - begun,
        )


@dataclass
class _Piece:
    """A block of replicas on its way."""

    program: Program
    state: State
    given: Given
    draws: list[torch.Generator]
    rows: int
    fast: Callable[..., State] | None
    taken: int = 0

    def advance(self, count: int) -> None:
        """Take `count` steps: whole chunks in the compiled loop, the rest one by one."""
        while count:
            first = self.taken == 0 and self.program.begins
            size = CHUNK if self.fast is not None and not first and count >= CHUNK else 1
            self._chunk(size)
            count -= size

    def _chunk(self, size: int) -> None:
        noise = self._draw(size)
        if size > 1 and self.fast is not None:
            begin = torch.tensor(float(self.taken), dtype=torch.float64)
            self.state = self.fast(self.state, self.given, noise, begin)
        else:
            count = torch.tensor(float(self.taken + 1), dtype=torch.float64)
            self.state = self.program.step(self.state, self.given, noise[0], self.taken, count)
        self.taken += size

    def _draw(self, size: int) -> list[list[Vector]]:
        """Standard normal numbers for `size` steps, drawn step by step so that chunks do not matter."""
        return [[[self._normal(x) for x in self.state["w"]] for _ in range(self.program.draws)] for _ in range(size)]

    def _normal(self, like: Tensor) -> Tensor:
        """Each generator serves as many rows, whatever the size of the block."""
        shape = like.shape[0] // len(self.draws), *like.shape[1:]
        parts = [torch.randn(shape, generator=draws, dtype=like.dtype) for draws in self.draws]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _program(
    problem: Problem,
    chosen: Rule,
    grid: Grid,
    reached: Callable[[Vector], Tensor] | None,
    bound: float | None,
    noise: Noise | None,
) -> Program:
    radii = torch.unique(grid.rho)
    if isinstance(chosen.ball, LossBudget) and len(radii) > 1:
        raise ValueError(f"{chosen.name}: its ball reads one radius for all; run one grid a radius, not {len(radii)}")
    if chosen.method.reads_base and not bool((grid.momentum > 0).all()):
        raise ValueError(f"{chosen.name}: climbs along the base's momentum; every replica needs momentum > 0")
    return Program(
        problem,
        chosen,
        momentum=bool((grid.momentum > 0).any()),
        still=bool((grid.rho == 0).any()),
        radius=float(radii[0]) if len(radii) == 1 else 0.0,
        noise="none" if noise is None else noise.where,
        reached=reached,
        bound=bound,
    )


def _check_start(problem: Problem, grid: Grid) -> None:
    shapes = tuple(tuple(x.shape[1:]) for x in grid.start)
    if shapes != problem.shapes:
        raise ValueError(f"start has weights of shapes {shapes}, and {problem} has {problem.shapes}")


def _fast(program: Program, work: int, engine: str, threads: int) -> Callable[..., State] | None:
    """The compiled steps, or None for the plain engine."""
    if engine == "plain":
        return None
    reason = None
    if not has_compiler():
        reason = "no C++ compiler was found (CXX, g++, clang++)"
    elif not program.rule.compiles:
        reason = f"{program.rule.name} is drawn, sorted, factorised or scheduled step by step"
    elif not program.problem.elementwise:
        reason = f"{program.problem} is no elementwise arithmetic, so nothing would be fused"
    if reason is not None:
        if engine == "compiled":
            raise ValueError(f'engine = "compiled": {reason}; use "auto" or "plain"')
        return None
    if engine == "auto" and work < _WORTH:
        return None
    return compiled_steps(program, threads)


def has_compiler() -> bool:
    """Whether a C++ compiler is found, which the engine "compiled" needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "g++", "clang++"))


def _pieces(program: Program, grid: Grid, noise: Noise | None, fast: Callable[..., State] | None) -> list[_Piece]:
    """The grid in blocks, of one size where that matters; the last is filled up with copies of its last row."""
    R, small = grid.replicas, max(1, _BLOCK // program.problem.size)
    size = small if fast is None else small * _LARGER
    std = torch.as_tensor(0.0 if noise is None else noise.std, dtype=torch.float64).expand(R)
    pieces = []
    for begin in range(0, R, size):
        end = min(begin + size, R)
        whole = fast is not None or noise is not None  # noise is drawn for whole blocks, so that engines draw alike
        rows = torch.arange(begin, begin + size if whole else end).clamp_max(R - 1)
        given = Given(grid.rho[rows], grid.lr[rows], grid.momentum[rows], std[rows])
        first = begin // small
        seeds = [noise.seed * 1_000_003 + k for k in range(first, first + size // small)] if noise is not None else []
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        pieces.append(_Piece(program, program.start([x[rows] for x in grid.start]), given, draws, end - begin, fast))
    return pieces


def _advance(pieces: Sequence[_Piece], count: int) -> None:
    for piece in pieces:
        piece.advance(count)


def _whole(pieces: Sequence[_Piece], name: str) -> Vector:
    return [torch.cat(parts) for parts in zip(*([x[: p.rows] for x in p.state[name]] for p in pieces), strict=True)]
