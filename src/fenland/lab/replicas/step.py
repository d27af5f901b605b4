"""One step of every replica: the optimizer's own programs on `algebra.Stacked`, over SGD with momentum.

It is written so that it can be traced: no look at numbers, no shape that depends on them, no tensor written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.algebra import Lazy, Leaf, Scalar, Stacked, Vector
from fenland.lab.replicas.problems import Problem
from fenland.lab.replicas.rules import Rule
from fenland.rules import Context, Update
from fenland.rules.requests import Climb, Grad

# What a replica carries, by name: "w"; "v" the momentum buffer; "kept.NAME" of the method; and the counts "hit" (steps
# until the goal) and "lost" (step that left the bound or was not finite), -1 for never.
State: TypeAlias = dict[str, Vector]


@dataclass(frozen=True)
class Given:
    """What the grid gives each replica, each of shape (R,): radius, learning rate, momentum, deviation of the noise."""

    rho: Tensor
    lr: Tensor
    momentum: Tensor
    std: Tensor


class ReplicaStep(Context):
    """What a method may ask of a step of all replicas."""

    def __init__(self, program: Program, state: State, given: Given, number: int) -> None:
        super().__init__(number, program.radius, state["w"])
        self.program, self.state, self.given = program, state, given
        self.ascends = program.rule.when.ascends(number, given.rho, {})

    def due(self, g: Leaf | None = None) -> bool:
        return self.ascends

    def steepest(self, a: Lazy) -> Lazy:
        return self.program.rule.ball.steepest(a, self)

    def reach(self, e: Lazy) -> Lazy:
        return e * self.given.rho

    def get(self, name: str, default: Any = None) -> Any:
        kept = self.state.get(f"kept.{name}")
        return default if kept is None else Leaf(kept, Stacked())

    def put(self, name: str, value: Lazy) -> Leaf:
        self.state[f"kept.{name}"] = value.tensors
        return Leaf(self.state[f"kept.{name}"], Stacked())

    def fresh(self, name: str, g: Leaf) -> list[bool]:
        return [f"kept.{name}" not in self.state] * len(g.tensors)

    def base(self, *names: str) -> Leaf | None:
        return Leaf(self.state["v"], Stacked()) if self.count > 0 else None

    def parameters(self) -> Sequence[Tensor]:
        return self.state["w"]

    def vector(self, tensors: Vector) -> Leaf:
        return Leaf(tensors, Stacked())

    def norm_of(self, full: Any) -> Scalar:
        return Stacked().norm(self.program.problem.gradient(self.state["w"]))

    def displacement(self, at: Climb | Lazy) -> Lazy:
        """e = rho * ..., not formed."""
        if isinstance(at, Lazy):
            return at
        return self.reach(self.steepest(at.a) * at.share)


@dataclass(frozen=True)
class Program:
    """A step, with everything decided that is the same for all replicas and steps."""

    problem: Problem  # the function
    rule: Rule  # the method
    momentum: bool = False  # whether any replica has momentum
    still: bool = False  # whether any replica has rho = 0, for which d = g by definition
    radius: float = 0.0  # the one radius of all replicas, for balls that read it (`s.rho`); 0 where there are several
    # which gradients are noisy: "none", "shared" (one draw a step, in g and in h), "independent" (two draws), or
    # "descent" (h only, and g on steps without an ascent)
    noise: str = "none"
    reached: Callable[[Vector], Tensor] | None = None  # the goal, (w) -> bool (R,)
    bound: float | None = None  # ||w|| beyond which a replica counts as lost and is left where it is

    @property
    def draws(self) -> int:
        """Normal draws a step and weight."""
        return {"none": 0, "independent": 2}.get(self.noise, 1)

    @property
    def begins(self) -> bool:
        """Whether the first step differs from the others."""
        return bool(self.rule.method.keeps or self.rule.method.reads_base)

    def start(self, w: Vector) -> State:
        """The state before the first step; what the rules keep is made in it."""
        never = torch.full((w[0].shape[0],), -1.0, dtype=torch.float64)
        state: State = {"w": w, "lost": [never]}
        if self.momentum:
            state["v"] = [torch.zeros_like(x) for x in w]
        if self.reached is not None:
            state["hit"] = [torch.where(self.reached(w), 0.0, never)]
        return state

    def step(self, state: State, given: Given, noise: list[Vector], number: int, count: Tensor) -> State:
        """The state after one step.

        Args:
            state: before it.
            given: constants of each replica.
            noise: standard normal draws, shapes as w's: `draws` vectors.
            number: of the step, from 0; read where rules depend on it only.
            count: number + 1 as a 0-d tensor.
        """
        V, w, new = Stacked(), state["w"], dict(state)
        update, gradients = self._run(ReplicaStep(self, new, given, number), [V.scale(given.std, xi) for xi in noise])
        plain = gradients[0 if len(gradients) == 1 or self.noise != "descent" else -1]
        d = self._where_moved(update.d.tensors, plain, given)
        if self.momentum:
            d = new["v"] = V.axpy(given.momentum, state["v"], d)
        far = [x - y for x, y in zip(w, V.scale(given.lr, d), strict=True)]
        if update.after is not None:
            none = [torch.zeros_like(x) for x in w]
            far = V.add(far, V.scale(given.lr, self._where_moved(update.after.tensors, none, given)))
        new["w"] = far
        return self._keep_sound(state, new, gradients, count)

    def _run(self, s: ReplicaStep, noise: list[Vector]) -> tuple[Update, list[Vector]]:
        """The method's program up to its update, and the gradients that it was given."""
        gradients: list[Vector] = []
        running = self.rule.method.step(s)
        request: Any = next(running)
        while not isinstance(request, Update):
            s.w = there = self._where(s, request)
            final = len(gradients) == self.rule.method.evaluations - 1
            g = self._gradient(there, self._drawn(noise, s.ascends, final))
            gradients.append(g)
            answer = Leaf(g, Stacked())
            if request.dual:
                answer.dual = answer.dot(self.rule.ball.steepest(answer, s))
            s.w = s.state["w"]
            request = running.send(answer)
        return request, gradients

    def _where(self, s: ReplicaStep, request: Grad) -> Vector:
        """w, or w + e where the request says so."""
        w = s.state["w"]
        return w if request.at is None else Stacked().add(w, s.displacement(request.at).tensors)

    def _drawn(self, noise: list[Vector], ascends: bool, final: bool) -> list[Vector]:
        """The draw that a gradient gets."""
        if not ascends:
            return noise[-1:] if self.noise == "descent" else noise[:1]
        if final:
            return noise[-1:]
        return [] if self.noise == "descent" else noise[:1]

    def _keep_sound(self, old: State, new: State, seen: list[Vector], count: Tensor) -> State:
        """Take the step where it is finite and the replica is not lost; note goals and losses."""
        V, lost = Stacked(), old["lost"][0]
        alive = lost < 0
        squares = [V.dot(x, x) for x in seen]  # finite where the norms are, and cheaper
        # x - x is 0 where x is finite, else NaN: in a fused loop less arithmetic than `isfinite` of each.
        sound = alive & (reduce(torch.add, [x - x for x in squares]) == 0)
        for name, vector in new.items():
            if name not in ("hit", "lost"):
                # What is kept for the first time (no old value) belongs to a lost replica in vain.
                new[name] = _where(sound, vector, old.get(name, vector))
        gone = alive & ~sound
        if self.bound is not None:
            gone = gone | (alive & ~(V.dot(new["w"], new["w"]) <= self.bound**2))
        new["lost"] = [torch.where(gone, count, lost)]
        if self.reached is not None:
            hit = old["hit"][0]
            new["hit"] = [torch.where((hit < 0) & self.reached(new["w"]), count, hit)]
        return new

    def _gradient(self, w: Vector, noise: list[Vector]) -> Vector:
        g = self.problem.gradient(w)
        return Stacked().add(g, noise[0]) if noise else g

    def _where_moved(self, moved: Vector, plain: Vector, given: Given) -> Vector:
        """`moved` for replicas with a radius, `plain` for those without: with rho = 0 d = g by definition."""
        return _where(given.rho > 0, moved, plain) if self.still else moved


def _where(mask: Tensor, yes: Vector, no: Vector) -> Vector:
    """Replica by replica."""
    return [
        torch.where(mask.reshape(-1, *(1,) * (x.dim() - 1)), x, y) if x is not y else x
        for x, y in zip(yes, no, strict=True)
    ]
