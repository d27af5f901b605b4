"""m-SAM: every micro-batch has its own ascent, and the base gets the mean of their d.

Source: Foret et al. 2021, arXiv 2010.01412, section 4.1 (m-sharpness); Andriushchenko and Flammarion 2022, arXiv
2206.06232. One ascent is held at a time, so the memory is that of one micro-batch and one accumulator of d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fenland.step.ascent import Ascent
from fenland.step.closures import Closure
from fenland.step.descent import Update
from fenland.step.gradients import collect, drop, secured
from fenland.step.handover import clip_factor, multiply_
from fenland.step.memory import Setting
from fenland.step.scaling import announce, unscale_by_hand

if TYPE_CHECKING:
    from fenland.step.conduct import Conductor


def passes(conductor: Conductor, closures: Sequence[Closure], setting: Setting) -> tuple[list[Any], Update]:
    """All passes of all micro-batches; afterwards `p.grad` holds the mean d up to the update's factor."""
    max_norm = setting.choices.max_norm
    part = replace(setting, choices=replace(setting.choices, max_norm=None))  # the mean is clipped, once
    values = []
    total: dict[Tensor, Tensor] = {}
    finite: list[Tensor] = []

    def unscale(asc: Ascent, scaler: Any) -> None:  # by hand: the scaler itself unscales once a step, the mean
        if asc.unscaled and not asc.moved:
            return
        unscale_by_hand(scaler, collect(conductor.groups).tensors, asc.g_norm)

    for closure in closures:
        drop(conductor.groups)
        value, update = conductor.passes(closure, conductor.guard.take(), part, unscale)
        if update.corrections:
            raise ValueError("a combine that corrects w after the base's step (decoupled WSAM) takes one closure")
        multiply_(update.factor, update.d)
        _add_gradients(total, conductor.groups)
        values.append(value)
        finite.append(update.finite)
    for p, x in total.items():
        p.grad = x.div_(len(closures))
    d = collect(conductor.groups)
    if setting.scaler is not None:
        announce(setting.scaler, conductor.base, conductor.claim, scaled=False)
    clip = clip_factor(max_norm, d.V.norm(d.tensors))
    return values, Update(d.tensors, clip, d.V.layouts is not None, torch.stack(finite).all(), update.record)


def _add_gradients(total: dict[Tensor, Tensor], groups: Sequence[dict[str, Any]]) -> None:
    """Move `p.grad` into the running sum."""
    for group in groups:
        for p in group["params"]:
            if p.grad is not None:
                total[p] = secured(p.grad) if p not in total else total[p].add_(p.grad)
                p.grad = None
