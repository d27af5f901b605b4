"""Which choices go together: refused at construction, naming both sides and the cure."""

from __future__ import annotations

import warnings

import torch

from fenland.algebra.shards import is_dtensor
from fenland.step.census import Census
from fenland.step.memory import Choices


def check_compatible(choices: Choices, base: torch.optim.Optimizer, census: Census | None) -> None:
    """Raise a ValueError where two choices cannot work together."""
    source, combine = choices.source, choices.combine
    if not source.needs_gradient:
        if combine.keeps_g or combine.scalars or combine.keeps:
            raise ValueError(
                f"combine = {combine}: needs the gradient at w, which {source} never computes; "
                "use AtAscentPoint(), or a source with a clean gradient"
            )
        if choices.nonfinite == "base_step":
            raise ValueError(f'nonfinite = "base_step": {source} has no gradient at w to fall back on; use "skip"')
        if choices.when.looks_at_gradient:
            raise ValueError(f"when = {choices.when}: looks at the gradient at w, which {source} never computes")
    if combine.reads_dual and not choices.ball.scale_free:
        raise ValueError(f"combine = {combine}: reads the ball's dual norm, and {choices.ball} is no norm")
    if choices.ball.curved and source.inner > 1:
        raise ValueError(f"source = {source}: several inner steps need a flat ball, not {choices.ball}")
    if choices.ball.needs_names and (census is None or not census.knows(base.param_groups)):
        raise ValueError(
            f"ball = {choices.ball}: needs the names of the parameters; pass model=, "
            "or build the base on model.named_parameters()"
        )
    _check_parameters(choices, base, census)
    if source.reads_base and all(group.get("momentum") == 0 for group in base.param_groups):
        warnings.warn(
            f"source = {source}: climbs along the base's momentum, and {type(base).__name__} has momentum = 0, so that "
            "every step is one of the base alone; give the base a momentum, such as 0.9",
            stacklevel=2,
        )


def _check_parameters(choices: Choices, base: torch.optim.Optimizer, census: Census | None) -> None:
    """Raise where a rule needs whole tensors that are sharded, or covers none of the parameters."""
    params = [p for group in base.param_groups for p in group["params"]]
    for name, rule in (("ball", choices.ball), ("source", choices.source)):
        if rule.needs_whole and any(is_dtensor(p) for p in params):
            raise ValueError(f"{name} = {rule}: needs whole tensors, and parameters are sharded; use another {name}")
    ball = choices.ball
    if ball.selects and census is not None and not any(ball.covers(census.name(p), p, census.owner(p)) for p in params):
        raise ValueError(f"ball = {ball}: covers none of the parameters, so there would be no ascent")
