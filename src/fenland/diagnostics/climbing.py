"""Perturbations of one model in a ball: the steepest one, random ones, and their length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from fenland.algebra import Lazy, Leaf, Lists, Vector
from fenland.arguments import check_instance
from fenland.diagnostics.flat import length
from fenland.diagnostics.objective import Objective
from fenland.rules import Adaptive, Ball, Context, OnlyLayers
from fenland.rules.parameters import ParameterNames

T = TypeVar("T")


class Climber:
    """What a ball says about an objective's parameters.

    Vectors have one tensor a parameter of the objective, in at least float32; parameters that the ball does not perturb
    have zeros.

    Args:
        objective: whose weights the ball is centred at; its weights must be w when this is made.
        ball: any but one with a retraction.

    Raises:
        ValueError: the ball is curved (Riemannian): it has no e to add; or it perturbs none of the parameters.
    """

    def __init__(self, objective: Objective, ball: Ball) -> None:
        check_instance("ball", ball, Ball, "fenland.L2()")
        if ball.geometry is not None:
            raise ValueError(
                f"ball = {ball!r}: moves along a retraction, not by adding e; use a flat ball, such as L2()"
            )
        names = {"params": objective.params, "param_names": objective.names}
        ball.check(ParameterNames([names], objective.model))
        self.objective, self.ball = objective, ball
        modules = dict(objective.model.named_modules())
        owners = [modules.get(name.rpartition(".")[0]) for name in objective.names]
        weights = [_wide(p.detach()).clone() for p in objective.params]
        self._context = _Here(objective.params, weights, objective.names, owners)

    def unit(self, a: Vector) -> Vector:
        """argmax <a, e> over ||e|| <= 1."""
        best = self.ball.steepest(self._leaf(a), self._context).form()
        found = {id(p): x for p, x in zip(best.params or (), best.tensors, strict=True)}
        pairs = zip(self.objective.params, a, strict=True)
        # Copies: a form may be the leaf itself, whose tensors are the caller's.
        return [found[id(p)].clone() if id(p) in found else torch.zeros_like(x) for p, x in pairs]

    def dual_norm(self, a: Vector) -> float:
        """max <a, e> over ||e|| <= 1 (unit: loss per unit of the radius)."""
        x = self._leaf(a)
        return float(x.dot(self.ball.steepest(x, self._context)))

    def norm(self, e: Vector, a: Vector) -> float:
        """||e|| in the ball's norm; `a` is the gradient at w, which some balls depend on.

        Raises:
            ValueError: the ball is no norm, such as the unnormalised ascent.
        """
        try:
            return float(self.ball.norm(self._leaf(e), self._leaf(a), self._context))
        except NotImplementedError as error:
            raise ValueError(
                f"ball = {self.ball!r}: is no norm ball; choose L2, Lp, Adaptive, Fisher or Spectral"
            ) from error

    def random(self, generator: torch.Generator, a: Vector) -> Vector:
        """A direction of norm 1: a Gaussian draw, stretched by |w| in an adaptive ball, scaled to the surface."""
        draw = [torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device) for x in a]
        covered = self.unit(a)
        if isinstance(self.ball, OnlyLayers):
            draw = [x if bool(u.any()) else torch.zeros_like(x) for x, u in zip(draw, covered, strict=True)]
        if isinstance(self.ball, Adaptive):
            metric = self.ball.metric(self._leaf(a), self._context)
            draw = [x * t for x, t in zip(draw, metric, strict=True)]
        length = self.norm(draw, a)
        return [x / length for x in draw] if length > 0 else draw

    def _leaf(self, a: Vector) -> Leaf:
        return Leaf(list(a), Lists(), self.objective.params)


def compared(g: Vector, h: Vector) -> tuple[float, float, float, float]:
    """|g|, |h|, their cosine and gamma = |g| / |h|, in float64; cosine and gamma are 1 where one of them is zero."""
    lengths = [math.hypot(*(length(x) for x in each)) for each in (g, h)]
    if min(lengths) == 0:
        return lengths[0], lengths[1], 1.0, lengths[0] / lengths[1] if lengths[1] else 1.0
    pairs = zip(g, h, strict=True)
    shares = [float((x / lengths[0]).flatten().double() @ (y / lengths[1]).flatten().double()) for x, y in pairs]
    return lengths[0], lengths[1], math.fsum(shares), lengths[0] / lengths[1]


class _Here(Context):
    """What a ball may ask at these weights, also about a part of the parameters."""

    def __init__(
        self, params: Sequence[Tensor], w: Vector, names: Sequence[str], owners: Sequence[nn.Module | None]
    ) -> None:
        super().__init__(rho=1.0, w=w, param_names=names, owners=owners)
        self._place = {id(p): i for i, p in enumerate(params)}

    def weights(self, a: Lazy) -> Vector:
        return self._of(a, super().weights(a))

    def names(self, a: Lazy) -> Sequence[str]:
        return self._of(a, super().names(a))

    def modules(self, a: Lazy) -> Sequence[nn.Module | None]:
        return self._of(a, super().modules(a))

    def _of(self, a: Lazy, known: Sequence[T]) -> list[T]:
        return [known[self._place[id(p)]] for p in a.form().params or ()]


def points_along(ball: Ball) -> bool:
    """Whether e is a multiple of the vector that is climbed along, as in L2 and the unnormalised ascent."""
    param = torch.nn.Parameter(torch.tensor([3.0, 4.0], device="cpu"))
    here = _Here([param], [param.detach()], ["weight"], [nn.LayerNorm(2, device="cpu")])
    a = Leaf([torch.tensor([1.0, -2.0], device="cpu")], Lists(), [param])
    try:
        best = ball.steepest(a, here)
    except (NotImplementedError, ValueError, AttributeError):  # it asks for a step's loss, say
        return False
    return len(best.terms) == 1 and best.terms[0][1] is a


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
