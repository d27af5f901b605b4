"""Which choices go together: refused at construction, naming both sides and the cure."""

from __future__ import annotations

import torch

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
    if choices.ball.curved and source.inner > 1:
        raise ValueError(f"source = {source}: several inner steps need a flat ball, not {choices.ball}")
    if choices.ball.needs_names and (census is None or not census.knows(base.param_groups)):
        raise ValueError(
            f"ball = {choices.ball}: needs the names of the parameters; pass model=, "
            "or build the base on model.named_parameters()"
        )
