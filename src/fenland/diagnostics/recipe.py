"""What an optimizer does, as far as theory has a name for it, and which learning rates that allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fenland.arguments import check_instance
from fenland.diagnostics.climbing import points_along
from fenland.optimizer import SharpnessAware
from fenland.rules import L2, Ascend, AtAscentPoint, Ball, Renormalize, Unnormalized
from fenland.theory import edge_curvature, reach, spectrum_limit

FAMILY = {True: ("SGD", "SAM", "SSAM"), False: ("SGD", "USAM", "SSAM-U")}  # by whether the ascent is normalised


@dataclass(frozen=True)
class Recipe:
    """An optimizer's numbers.

    Attributes:
        name: for people, such as "SSAM(SGD)".
        method: theory's name of it: "SGD", "SAM", "SSAM" (normalised ascent), "USAM" or "SSAM-U" (unnormalised).
        lr: the largest learning rate of its groups; None where there is no optimizer.
        rho: the largest radius of its groups.
        radii: radius of each parameter, by the parameter's identity.
        ball: the ball of its ascent.
        momentum: of SGD.
        nesterov: of SGD.
        dampening: of SGD.
        weight_decay: of SGD, which adds it to the gradient; 0 elsewhere.
        doubts: why the limits of theory are not quite this optimizer's; one sentence each.
        steps_by_sgd: whether the base is torch.optim.SGD, for which the limits hold.
        aware: whether it is fenland's, which has a ball.
    """

    name: str
    method: str
    lr: float | None
    rho: float
    radii: dict[int, float]
    ball: Ball
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    weight_decay: float = 0.0
    doubts: tuple[str, ...] = ()
    steps_by_sgd: bool = True
    aware: bool = False

    @property
    def normalized(self) -> bool:
        """Whether the length of e does not depend on that of the gradient."""
        return not isinstance(self.ball, Unnormalized)

    @property
    def base(self) -> dict[str, Any]:
        """Momentum and its company, as `fenland.theory` takes them."""
        names = ("momentum", "nesterov", "dampening", "weight_decay")
        return {name: getattr(self, name) for name in names}


def read(optimizer: torch.optim.Optimizer | None) -> Recipe:
    """The recipe of an optimizer, fenland's or torch's.

    Raises:
        TypeError: it is no optimizer.
        RuntimeError: its weights are at an ascent point.
    """
    if optimizer is None:
        return Recipe("no optimizer", "SGD", None, 0.0, {}, L2())
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer = {optimizer!r}: must be a torch or fenland optimizer, or None")
    aware = isinstance(optimizer, SharpnessAware)
    base = optimizer.base if isinstance(optimizer, SharpnessAware) else optimizer
    groups = base.param_groups
    if isinstance(optimizer, SharpnessAware):
        optimizer._runner.refuse("a diagnosis", busy=True)
        ball, stable = optimizer.rules.ball, isinstance(optimizer.rules.method, Renormalize)
    else:
        ball, stable = L2(), False
    radii = {id(p): float(group["rho"]) if aware else 0.0 for group in groups for p in group["params"]}
    rho = max(radii.values(), default=0.0)
    family = FAMILY[not isinstance(ball, Unnormalized)]
    method = "SGD" if rho == 0 else family[2 if stable else 1]
    by_sgd = type(base) is torch.optim.SGD and not any(group.get("maximize") for group in groups)
    nesterov = by_sgd and any(group.get("nesterov") for group in groups)
    options = {name: _largest(groups, name) for name in ("momentum", "dampening", "weight_decay")} if by_sgd else {}
    if nesterov:
        options["dampening"] = 0.0  # another group's
    return Recipe(
        _name(optimizer, base, method, rho),
        method,
        _largest(groups, "lr"),
        rho,
        radii,
        ball,
        nesterov=nesterov,
        doubts=tuple(_doubts(optimizer, base, ball)),
        steps_by_sgd=by_sgd,
        aware=aware,
        **options,
    )


def _largest(groups: Sequence[dict[str, Any]], name: str) -> float:
    return max(float(group.get(name, 0.0)) for group in groups)


def _name(optimizer: torch.optim.Optimizer, base: torch.optim.Optimizer, method: str, rho: float) -> str:
    if optimizer is base:
        return type(base).__name__
    shown = method if rho else "rho = 0"
    return f"{shown}({type(base).__name__})"


def _doubts(optimizer: torch.optim.Optimizer, base: torch.optim.Optimizer, ball: Ball) -> list[str]:
    """What keeps theory's limits from being exactly this optimizer's."""
    found = []
    if type(base) is not torch.optim.SGD:
        found.append(
            f"{type(base).__name__} rescales each coordinate, so limits of the learning rate, which are those of SGD, "
            "do not hold for it"
        )
    elif any(group.get("maximize") for group in base.param_groups):
        found.append("maximize=True steps uphill, and limits are those of steps downhill; diagnose the negated loss")
    for name in ("lr", "rho", "momentum", "dampening", "weight_decay"):
        values = {float(group[name]) for group in base.param_groups if name in group}
        if len(values) > 1:
            found.append(f"the groups have {name} from {min(values):g} to {max(values):g}; the largest is looked at")
    if not isinstance(optimizer, SharpnessAware):
        return found
    method = optimizer.rules.method
    inner = method.method if isinstance(method, Renormalize) else method
    if not isinstance(inner, Ascend):
        found.append(f"{type(inner).__name__} takes other steps; limits are those of stepping with h alone")
    elif not isinstance(inner.combine, AtAscentPoint):
        found.append(f"{type(inner.combine).__name__} mixes g and h; limits are those of stepping with h alone")
    if not points_along(ball):
        found.append(
            f"in the ball {type(ball).__name__} e does not point along g; limits are those of |e| / |g| along g"
        )
    return found


@dataclass(frozen=True)
class Allowed:
    """The learning rates that one method allows here.

    Attributes:
        method: "SGD", "SAM", "SSAM", "USAM" or "SSAM-U".
        lr: the largest stable learning rate; inf where no curvature bounds it.
        low: the same with the eigenvalue larger by its residual.
        high: the same with the eigenvalue smaller by its residual.
        now: for "SAM", the largest learning rate at which a step shrinks the steepest mode at the present gradient
            norm; between it and `lr` SAM circles. None elsewhere.
        edge: the edge of stability at the learning rate in use: the largest eigenvalue near which training by this
            method would settle (`theory.edge_curvature` at the present |e| / |g| and gamma; 2 / lr for plain SGD). None
            without a learning rate of SGD.
    """

    method: str
    lr: float
    low: float
    high: float
    now: float | None = None
    edge: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def allowed(
    recipe: Recipe,
    smallest: tuple[float, float],
    largest: tuple[float, float],
    effective: float | None,
    gamma: float | None = None,
) -> tuple[Allowed, ...]:
    """Limits of SGD and, with an ascent, of SAM and SSAM built on the recipe's kind of ascent.

    Args:
        recipe: the optimizer's numbers.
        smallest: the least eigenvalue and its residual.
        largest: the largest eigenvalue and its residual.
        effective: |e| / |g| now; None where there is no gradient.
        gamma: |g| / |h| now; None without an ascent.
    """
    family = FAMILY[recipe.normalized] if recipe.rho else ("SGD",)

    def limit(method: str, rho: float, widen: float) -> float:
        values = [smallest[0] - widen * smallest[1], largest[0] + widen * largest[1]]
        return spectrum_limit(values, rho, method, **recipe.base).lr

    found = []
    for method in family:
        low, lr, high = (limit(method, recipe.rho, widen) for widen in (1.0, 0.0, -1.0))
        now = limit("USAM", effective, 0.0) if method == "SAM" and effective is not None else None
        found.append(Allowed(method, lr, low, high, now, edge_of(recipe, method, effective, gamma)))
    return tuple(found)


def edge_of(recipe: Recipe, method: str, effective: float | None, gamma: float | None) -> float | None:
    """The edge of stability of `method` at the recipe's learning rate; see `Allowed`."""
    if not recipe.lr or not recipe.steps_by_sgd:
        return None
    if reach(recipe.momentum, recipe.nesterov, recipe.dampening) <= recipe.lr * recipe.weight_decay:
        return 0.0  # the weight decay alone is unstable
    if method == "SGD" or effective is None:
        return edge_curvature(recipe.lr, **recipe.base)
    # The ascent as it is: e = effective * g, whatever the ball makes of rho.
    family = "SSAM-U" if method.startswith("SSAM") else "USAM"
    return edge_curvature(recipe.lr, effective, family, gamma=gamma if family == "SSAM-U" else None, **recipe.base)


def largest_rho(recipe: Recipe, curvature: float) -> float:
    """The radius below which the unnormalised ascent is stable at the recipe's learning rate: (A - l) / l^2.

    A = x / lr - weight decay is the largest drive that the base can take, and l * (1 + rho * l) <= A. Derived.
    """
    if recipe.lr is None or recipe.lr <= 0 or curvature <= 0:
        return math.inf
    drive = reach(recipe.momentum, recipe.nesterov, recipe.dampening) / recipe.lr - recipe.weight_decay
    return (drive - curvature) / curvature**2


def radii_of(recipe: Recipe, originals: Sequence[Tensor]) -> list[float]:
    """The radius of each of the model's parameters; 0 for those that the optimizer does not have."""
    return [recipe.radii.get(id(p), 0.0) for p in originals]


def names_of(model: nn.Module, recipe: Recipe) -> list[str]:
    """The model's parameters that the optimizer has."""
    check_instance("model", model, nn.Module, "the module that you train")
    found = [name for name, p in model.named_parameters() if id(p) in recipe.radii and p.requires_grad]
    if not found:
        raise ValueError("optimizer: it has none of the model's trainable parameters; was it made for another model?")
    return found
