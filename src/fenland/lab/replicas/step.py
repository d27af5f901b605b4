"""One step of every replica: the optimizer's rules on `algebra.Stacked`, over SGD with momentum.

It is written so that it can be traced: no look at numbers, no shape that depends on them, no tensor written to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fenland.algebra import Stacked, Vector
from fenland.lab.replicas.problems import Problem
from fenland.lab.replicas.rules import Rule
from fenland.rules import At, Gram
from fenland.rules.combine import Coefficient

# What a replica carries, by name: "w"; "v" the momentum buffer; "kept.NAME" of the source; "combine.v"; and the
# counts "hit" (steps until the goal) and "lost" (step that left the bound or was not finite), -1 for never.
State: TypeAlias = dict[str, Vector]


@dataclass(frozen=True)
class Given:
    """What the grid gives each replica, each of shape (R,): radius, learning rate, momentum, deviation of the noise."""

    rho: Tensor
    lr: Tensor
    momentum: Tensor
    std: Tensor


@dataclass(frozen=True)
class Program:
    """A step, with everything decided that is the same for all replicas and steps.

    Attributes:
        problem: the function.
        rule: the method.
        momentum: whether any replica has momentum.
        still: whether any replica has rho = 0, for which d = g by definition.
        radius: the one radius of all replicas, for balls that read it (`At.rho`); 0 where there are several.
        noise: which gradients are noisy: "none", "shared" (one draw a step, in g and in h), "independent" (two draws),
            or "descent" (h only, and g on steps without an ascent).
        reached: the goal, (w) -> bool (R,).
        bound: ||w|| beyond which a replica counts as lost and is left where it is.
    """

    problem: Problem
    rule: Rule
    momentum: bool = False
    still: bool = False
    radius: float = 0.0
    noise: str = "none"
    reached: Callable[[Vector], Tensor] | None = None
    bound: float | None = None

    @property
    def draws(self) -> int:
        """Normal draws a step and weight."""
        return {"none": 0, "independent": 2}.get(self.noise, 1)

    @property
    def begins(self) -> bool:
        """Whether the first step differs from the others."""
        return bool(self.rule.source.keeps or self.rule.source.reads_base or self.rule.combine.keeps)

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
        scaled = [V.scale(given.std, xi) for xi in noise]
        at = At(V, number, self.radius, w, fresh=[number == 0] * len(w))
        due = self.rule.when.ascends(number, given.rho, {}) and not (number == 0 and bool(self.rule.source.reads_base))
        if due:
            d, correction, seen = self._ascended(new, given, scaled, at)
        else:
            d, correction, seen = self._plain(new, given, scaled, at)
        if self.momentum:
            d = new["v"] = V.axpy(given.momentum, state["v"], d)
        far = [x - y for x, y in zip(w, V.scale(given.lr, d), strict=True)]
        if correction is not None:
            far = V.add(far, V.scale(given.lr, correction))
        new["w"] = far
        return self._keep_sound(state, new, seen, count)

    def _keep_sound(self, old: State, new: State, seen: list[Vector], count: Tensor) -> State:
        """Take the step where it is finite and the replica is not lost; note goals and losses."""
        V, lost = Stacked(), old["lost"][0]
        alive = lost < 0
        sound = alive
        for x in seen:  # squares: finite where the norm is, and cheaper
            sound = sound & torch.isfinite(V.dot(x, x))
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

    def _plain(
        self, state: State, given: Given, noise: list[Vector], at: At
    ) -> tuple[Vector, Vector | None, list[Vector]]:
        """A step without an ascent: d = g, or what the combine makes of g and its kept v."""
        V, combine = Stacked(), self.rule.combine
        g = self._gradient(state["w"], noise[-1:] if self.noise == "descent" else noise[:1])
        if not combine.keeps or "combine.v" not in state:
            return g, None, [g]
        v = state["combine.v"]
        alpha, beta = combine.reuse(Gram(V.norm(g), V.norm(v), V.dot(g, v)))
        return self._where_moved(mixed(V, alpha, g, beta, v), g, given), None, [g]

    def _ascended(
        self, state: State, given: Given, noise: list[Vector], at: At
    ) -> tuple[Vector, Vector | None, list[Vector]]:
        """(d, what is added to w times lr after the base's step, the gradients that must be finite)."""
        V, rule, w = Stacked(), self.rule, state["w"]
        g: Vector = []
        if rule.source.needs_gradient:
            g = self._gradient(w, [] if self.noise == "descent" else noise[:1])
        ball = rule.at_weights(lambda: V.norm(self.problem.gradient(w)))
        a = self._climbed(state, g, at)
        best = ball.steepest(a, w, at)
        unit = V.scale(best.scale * rule.source.share, best.direction)
        there = V.add(w, V.scale(given.rho, unit))
        for _ in range(rule.source.inner - 1):
            best = ball.steepest(self._gradient(there, [] if self.noise == "descent" else noise[:1]), w, at)
            unit = rule.source.advance(unit, V.scale(best.scale, best.direction), at)
            there = V.add(w, V.scale(given.rho, unit))
        h = self._gradient(there, noise[-1:])
        gram = self._measured(g, h)
        if rule.combine.reads_dual:
            duals = ball.dual_norm(g, w, at), ball.dual_norm(h, there, at)
            gram = Gram(gram.g, gram.h, gram.gh, *duals)
        alpha, beta = rule.combine.coefficients(gram)
        d = mixed(V, alpha, g, beta, h)
        if rule.combine.keeps:
            first, second = rule.combine.learn(gram)
            state["combine.v"] = mixed(V, first, g, second, h)
        seen = [g, h] if g else [h]
        of = rule.combine.correction(gram)
        # With rho = 0 in a grid of several radii h is the gradient at w, and the one that the "descent" noise is in.
        plain = h if self.noise == "descent" else g
        if of is None:
            return self._where_moved(d, plain, given), None, seen
        none = [torch.zeros_like(x) for x in w]
        return g, self._where_moved(mixed(V, of[0], g, of[1], h), none, given), seen

    def _climbed(self, state: State, g: Vector, at: At) -> Vector:
        """a, with what the source keeps or reads from the base."""
        source = self.rule.source
        kept = {name: state[f"kept.{name}"] for name in source.keeps if f"kept.{name}" in state}
        if source.keeps and not kept:
            kept = source.start(g)
        if source.reads_base:
            kept["base"] = state["v"]
        a = source.vector(g, kept, at)
        state.update({f"kept.{name}": kept[name] for name in source.keeps})
        return a

    def _measured(self, g: Vector, h: Vector) -> Gram:
        V, combine = Stacked(), self.rule.combine
        length = V.norm(h)
        if not g:
            return Gram(length, length)
        wanted = "gh" in combine.scalars or combine.keeps_g
        return Gram(V.norm(g), length, V.dot(g, h) if wanted else None)

    def _gradient(self, w: Vector, noise: list[Vector]) -> Vector:
        g = self.problem.gradient(w)
        return Stacked().add(g, noise[0]) if noise else g

    def _where_moved(self, moved: Vector, plain: Vector, given: Given) -> Vector:
        """`moved` for replicas with a radius, `plain` for those without."""
        return _where(given.rho > 0, moved, plain) if self.still and plain else moved


def mixed(V: Stacked, alpha: Coefficient, xs: Vector, beta: Coefficient, ys: Vector) -> Vector:
    """alpha * x + beta * y; factors that are plainly 0 or 1 cost nothing, and x may be missing where alpha is 0."""
    parts = [_times(V, factor, vector) for factor, vector in ((alpha, xs), (beta, ys)) if not _is(factor, 0.0)]
    if not parts:
        return [torch.zeros_like(y) for y in ys]
    return parts[0] if len(parts) == 1 else V.add(parts[0], parts[1])


def _times(V: Stacked, factor: Coefficient, xs: Vector) -> Vector:
    if _is(factor, 1.0):
        return xs
    return V.scale(factor if isinstance(factor, Tensor) else float(factor), xs)


def _is(factor: Coefficient, number: float) -> bool:
    return not isinstance(factor, Tensor) and factor == number


def _where(mask: Tensor, yes: Vector, no: Vector) -> Vector:
    """Replica by replica."""
    return [
        torch.where(mask.reshape(-1, *(1,) * (x.dim() - 1)), x, y) if x is not y else x
        for x, y in zip(yes, no, strict=True)
    ]
