"""What a step reports: device tensors, so that recording never waits for the device; reading one does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fenland.rules.combine import ratio


@dataclass
class StepRecord:
    """The record of one step, `opt.last`.

    Every number is a 0-d tensor on the device (reading it synchronises) or None where it is not defined.

    Attributes:
        loss: L(w), the closure's value in pass 1; None in the two-call form.
        loss_ascent: L(w + e), its value in pass 2; None where no ascent ran.
        grad_norm: ||g||_2 at w over all parameters (unit: loss per unit of w).
        ascent_grad_norm: ||h||_2 at w + e.
        radius: ||e|| as the rule forms it, in the ball's norm (Euclidean for L2 and for the unnormalised ascent).
        skipped: the base was not stepped (non-finite gradient); a 0-d bool tensor.
        cosine: <g, h> / (||g|| ||h||), where the combine keeps g or the step was sampled (`record_every`).
        realised_radius: ||(w + e) - w||_2 as the parameters' precision holds it, on sampled steps.
        realised_cosine: cosine between (w + e) - w and the e that the rule asked for, on sampled steps of flat balls.
    """

    loss: Tensor | None = None
    loss_ascent: Tensor | None = None
    grad_norm: Tensor | None = None
    ascent_grad_norm: Tensor | None = None
    radius: Tensor | None = None
    skipped: Tensor | None = None
    cosine: Tensor | None = None
    realised_radius: Tensor | None = None
    realised_cosine: Tensor | None = None

    @property
    def sharpness(self) -> Tensor | None:
        """L(w + e) - L(w), the loss gained by the ascent (unit: loss)."""
        if self.loss is None or self.loss_ascent is None:
            return None
        return self.loss_ascent - self.loss

    @property
    def gamma(self) -> Tensor | None:
        """||g|| / ||h||, the factor of Stable SAM (no unit); 1 where h = 0."""
        if self.grad_norm is None or self.ascent_grad_norm is None:
            return None
        return ratio(self.grad_norm, self.ascent_grad_norm)
