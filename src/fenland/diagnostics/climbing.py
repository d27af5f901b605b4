"""Perturbations of one model in a ball: the steepest one, random ones, and their length."""

from __future__ import annotations

import torch
from torch import Tensor

from fenland.algebra import Lists, Vector
from fenland.arguments import check_instance
from fenland.diagnostics.objective import Objective
from fenland.rules import Adaptive, Ball
from fenland.rules.context import At


class Climber:
    """What a ball says about an objective's parameters.

    Vectors have one tensor a parameter of the objective, in at least float32; parameters that the ball does not perturb
    have zeros.

    Args:
        objective: whose weights the ball is centred at; its weights must be w when this is made.
        ball: any but one with a retraction.

    Raises:
        ValueError: the ball is curved (Riemannian): it has no e to add.
    """

    def __init__(self, objective: Objective, ball: Ball) -> None:
        check_instance("ball", ball, Ball, "fenland.L2()")
        if ball.curved:
            raise ValueError(
                f"ball = {ball!r}: moves along a retraction, not by adding e; use a flat ball, such as L2()"
            )
        self.objective, self.ball = objective, ball
        modules = dict(objective.model.named_modules())
        owners = [modules.get(name.rpartition(".")[0]) for name in objective.names]
        known = zip(objective.names, objective.params, owners, strict=True)
        self.chosen = [i for i, each in enumerate(known) if not ball.selects or ball.covers(*each)]
        if not self.chosen:
            raise ValueError(f"ball = {ball!r}: perturbs none of the parameters {', '.join(objective.names)}")
        self._names = [objective.names[i] for i in self.chosen]
        self._owners = [owners[i] for i in self.chosen]
        self._params = [objective.params[i] for i in self.chosen]
        self._w = [_wide(p.detach()).clone() for p in self._params] if ball.reads_w else []

    def unit(self, a: Vector) -> Vector:
        """argmax <a, e> over ||e|| <= 1."""
        part = self._part(a)
        best = self.ball.steepest(part, self._w, self._at())
        scale = best.scale
        return self._whole([u * scale.to(u.device) for u in best.direction], a)

    def dual_norm(self, a: Vector) -> float:
        """max <a, e> over ||e|| <= 1 (unit: loss per unit of the radius)."""
        return float(self.ball.dual_norm(self._part(a), self._w, self._at()))

    def norm(self, e: Vector, a: Vector) -> float:
        """||e|| in the ball's norm; `a` is the gradient at w, which some balls depend on.

        Raises:
            ValueError: the ball is no norm, such as the unnormalised ascent.
        """
        try:
            return float(self.ball.norm(self._part(e), self._part(a), self._w, self._at()))
        except NotImplementedError as error:
            raise ValueError(
                f"ball = {self.ball!r}: is no norm ball; choose L2, Lp, Adaptive, Fisher or Spectral"
            ) from error

    def random(self, generator: torch.Generator, a: Vector) -> Vector:
        """A direction of norm 1: a Gaussian draw, stretched by |w| in an adaptive ball, scaled to the surface."""
        likes = self._part(a)
        draw = [torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device) for x in likes]
        if isinstance(self.ball, Adaptive):
            draw = [x * t for x, t in zip(draw, self.ball.metric(self._w, self._at()), strict=True)]
        whole = self._whole(draw, a)
        length = self.norm(whole, a)
        return [x / length for x in whole] if length > 0 else whole

    def _at(self) -> At:
        # A new algebra each time: it remembers norms of the lists that it has seen, and keeps these alive.
        return At(Lists(), params=self._params, names=self._names, modules=self._owners)

    def _part(self, whole: Vector) -> Vector:
        return [whole[i] for i in self.chosen]

    def _whole(self, part: Vector, like: Vector) -> Vector:
        if len(part) == len(like):
            return part
        found = [torch.zeros_like(x) for x in like]
        for i, x in zip(self.chosen, part, strict=True):
            found[i] = x
        return found


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
