"""Gradients under a loss scale (torch.amp.GradScaler): the only file that knows a scaler. Nobody touches its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Leaf, Scalar, Vector
from fenland.algebra.lists import scale_
from fenland.step.gradients import Gradient


class Scaled:
    """The gradients carry the scale of an active scaler.

    Args:
        scaler: the scaler that the closure scales its loss with.
        claim: called with the scaler to note that the wrapping optimizer is unscaled; raises where the user did so.
    """

    def __init__(self, scaler: Any, claim: Any) -> None:
        self.scaler, self.claim = scaler, claim

    def factor(self, like: Vector) -> Scalar | None:
        """1 / scale, what gradients must still be multiplied with."""
        if not like:
            return None
        scale: Scalar = self.scaler.scale(torch.ones((), device=like[0].device))  # on the device, no synchronisation
        return scale.reciprocal()

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss as backward is run on it."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    def unscale(self, base: torch.optim.Optimizer, d: Gradient, others: Sequence[Leaf]) -> None:
        """Let the scaler unscale what `p.grad` holds, and see whether it is finite.

        Once a step, on d's own memory, which gets the scale back first where it has left already.

        An overflow of another pass is made visible to it: 0 * ||g|| is added to the smallest gradient, nothing where
        ||g|| is finite, NaN where it is not.

        Raises:
            RuntimeError: the scaler has unscaled or stepped one of the two optimizers since its last update.
        """
        for leaf in others:
            mark_nonfinite(d.wholes, leaf.norm)
        if d.factor is None:
            grads = [p.grad for group in base.param_groups for p in group["params"] if p.grad is not None]
            if grads:
                scale_(self.scaler.scale(torch.ones((), device=grads[0].device)), grads)
        try:
            self.claim(self.scaler)
            self.scaler.unscale_(base)
        except RuntimeError as error:
            raise RuntimeError(
                "the scaler has unscaled this optimizer's gradients already: take scaler.unscale_() out of the closure "
                "(fenland unscales; max_norm= clips), and call scaler.update() once after every step"
            ) from error
        d.factor = None

    def step(self, base: torch.optim.Optimizer) -> None:
        """Step the base, or leave it out after an overflow."""
        self.scaler.step(base)


def mark_nonfinite(xs: Vector, norm: Scalar) -> None:
    """Add 0 * norm to the smallest tensor."""
    if xs:
        smallest = min((x for x in xs if x.numel()), key=lambda x: x.numel())
        smallest.add_((norm * 0).to(smallest.device))
