"""The hand-over of d to the base optimizer: length, clipping, and what a fused base can take upon itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fenland.algebra import Scalar, Vector
from fenland.algebra.lists import scale_
from fenland.rules.combine import Coefficient

CLIP_FLOOR = 1e-6  # torch.nn.utils.clip_grad_norm_ adds the same, so that both clip alike


def clip_factor(max_norm: float | None, length: Scalar) -> Coefficient:
    """min(1, max_norm / ||d||), and 1 without a bound."""
    return 1.0 if max_norm is None else (max_norm / (length + CLIP_FLOOR)).clamp_max(1.0)


def is_fused(base: torch.optim.Optimizer) -> bool:
    """Whether every group of the base runs a fused kernel, which takes `grad_scale` and `found_inf`.

    A wrapper (ZeroRedundancyOptimizer) shows the fused groups of what it wraps but does not pass the two on.
    """
    takes = getattr(base, "_step_supports_amp_scaling", False)
    return bool(takes) and all(group.get("fused") for group in base.param_groups)


def takes_factor(base: torch.optim.Optimizer, d: Vector, sharded: bool) -> bool:
    """Whether the base can multiply d by a factor on its way: fused, and float32's precision is enough."""
    return is_fused(base) and not sharded and all(x.dtype != torch.float64 for x in d)


def multiply_(factor: Coefficient, d: Vector) -> None:
    """d <- factor * d in place; nothing to do for 1.0."""
    if isinstance(factor, Tensor):
        scale_(factor, d)
    elif factor != 1.0 and d:
        torch._foreach_mul_(d, factor)


def hand_over(
    base: torch.optim.Optimizer,
    d: Vector,
    factor: Coefficient,
    *,
    sharded: bool = False,
    found_inf: Tensor | None = None,
    scaler: Any = None,
) -> None:
    """Step the base with factor * d, where d is what `p.grad` holds.

    Args:
        base: the wrapped optimizer.
        d: the gradients as they stand, local tensors.
        factor: what is still to be multiplied in; 1.0 for nothing.
        sharded: some parameter is a DTensor.
        found_inf: 0-d tensor, 1 to make a fused base skip its step without a host synchronisation.
        scaler: a GradScaler whose `step` calls the base; d is unscaled already.
    """
    handed: dict[str, Tensor] = {}
    if isinstance(factor, Tensor) and takes_factor(base, d, sharded):
        handed["grad_scale"] = factor.reciprocal().float()
    else:
        multiply_(factor, d)
    if found_inf is not None:
        handed["found_inf"] = found_inf
    for name, value in handed.items():
        setattr(base, name, value)
    try:
        if scaler is None:
            base.step()
        else:
            scaler.step(base)
    finally:
        for name in handed:
            if name in base.__dict__:
                delattr(base, name)
