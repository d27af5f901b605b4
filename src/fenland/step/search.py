"""Choosing a combine's number by looking: the loss at several points around w, now and then (XSAM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fenland.algebra import Lists, Vector
from fenland.algebra.lists import axpby
from fenland.algebra.shards import layouts, local
from fenland.rules import Gram
from fenland.step.ascent import Ascent
from fenland.step.closures import loss_of
from fenland.step.gradients import collect, drop
from fenland.step.memory import Setting


def search(asc: Ascent, setting: Setting, look: Callable[[], Any]) -> None:
    """Evaluate the loss at every candidate point and note the number of the highest.

    Weights are at w before and after, `p.grad` holds h before and after. One host synchronisation a candidate; under
    data parallelism the ranks average their losses, so that all note the same.

    Args:
        asc: the step under way; its g is kept.
        setting: this step's surroundings.
        look: runs the closure where the weights are, with this step's buffers and random numbers.
    """
    at_w = dict(zip(asc.g.params, asc.g.tensors, strict=True))
    h = collect(setting.groups, to_write=False)
    params = [p for p in h.params if p in at_w]
    V = Lists(layouts(params))
    gs: Vector = [at_w[p] for p in params]
    hs: Vector = [local(p.grad) for p in params]  # type: ignore[arg-type]
    gram = Gram(V.norm(gs), V.norm(hs), V.dot(gs, hs))
    best, found = -float("inf"), None
    drop(setting.groups)
    for number, a, b in setting.choices.combine.candidates(gram):
        asc.journey.plan(params)
        asc.journey.depart(axpby(a, gs, b, hs), torch.ones_like(gram.h), [True] * len(params))
        loss = _of_all_ranks(loss_of(look()))
        asc.journey.back()
        drop(setting.groups)
        if loss > best:
            best, found = loss, number
    for p, whole in zip(h.params, h.wholes, strict=True):
        p.grad = whole
    if found is not None:
        setting.choices.combine.note(found, setting.memory.scalars)


def _of_all_ranks(loss: torch.Tensor | None) -> float:
    if loss is None:
        raise ValueError("the closure must return the loss: the search compares it between points")
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        loss = loss.clone()
        distributed.all_reduce(loss)
    return float(loss)
