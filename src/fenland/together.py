"""One step of several optimizers of one model, with one ascent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from fenland.arguments import check_among, check_instance
from fenland.optimizer import SharpnessAware
from fenland.step import drivers
from fenland.step.closures import Closure, refuse_caller


def step_together(
    optimizers: Sequence[SharpnessAware],
    closure: Closure,
    *,
    scaler: Any = None,
    norm: Literal["joint", "each"] = "joint",
) -> Any:
    """One step of several optimizers of one model (Muon for matrices, AdamW for the rest), with one ascent.

    The closure is called once at w and once at w + e for all of them; it zeroes all gradients.

    Args:
        optimizers: with parameters of their own each.
        closure: as for `step`.
        scaler: likewise.
        norm: "joint": one ascent over all parameters, whose e has the length rho of all, as one optimizer over all of
            them would take; needs equal rules. "each": each optimizer climbs by its own norm and its own rules.

    Returns:
        What the closure returned at w.

    Raises:
        ValueError: fewer than two optimizers, a parameter that two of them have, or rules that differ under "joint".
        TypeError: one of them is no SharpnessAware.
    """
    check_among("norm", norm, ("joint", "each"))
    if not isinstance(optimizers, Sequence):
        raise TypeError(f"optimizers = {type(optimizers).__name__}: must be a list of sharpness-aware optimizers")
    if not callable(closure):
        raise TypeError(f"closure = {closure!r}: must be a callable")
    for opt in optimizers:
        check_instance("optimizers", opt, SharpnessAware, "fenland.SAM(base)")
    refuse_caller(closure)
    for opt in optimizers:
        opt._before_step((opt, closure), {})
    with torch.no_grad():
        scalings = [opt._scaling(scaler) for opt in optimizers]
        value = drivers.run_together([opt._runner for opt in optimizers], closure, scalings, joint=norm == "joint")
    for opt in optimizers:
        opt._after_step((opt, closure), {})
    return value
