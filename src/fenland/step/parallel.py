"""Whose gradient is climbed along under data parallelism: everybody's ("global") or each rank's own ("local").

Local ascent is the recipe of Foret et al. 2021, section 4.1 (each accelerator perturbs by its own gradient): m-SAM with
m = the batch of one rank.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra import Vector
from fenland.algebra.lists import scale_
from fenland.algebra.shards import is_dtensor
from fenland.rules import AtAscentPoint
from fenland.step.ascent import Ascent
from fenland.step.descent import Update, descend
from fenland.step.gradients import collect
from fenland.step.handover import clip_factor
from fenland.step.memory import Choices, Setting


class Parallel:
    """What distinguishes local from global ascent.

    With d = h, only pass 1 is unsynchronised and DDP reduces h. Any other combine runs both passes unsynchronised and
    reduces d once: a rank's own gamma or g would drift the ranks apart.
    """

    def __init__(self, sync: str, model: nn.Module | None, choices: Choices) -> None:
        self.ranks_differ = sync == "local" and _world() > 1
        self.ddp: Any = model if self.ranks_differ else None
        self.reduces_d = self.ranks_differ and not isinstance(choices.combine, AtAscentPoint)
        if not self.ranks_differ:
            return
        if model is not None and any(is_dtensor(p) for p in model.parameters()):
            raise ValueError(
                'sync = "local": parameters are sharded (FSDP), and without gradient reduction no rank has a whole '
                'gradient to climb along; use sync="global"'
            )
        if not isinstance(model, nn.parallel.DistributedDataParallel):
            raise ValueError(
                f'sync = "local": needs model= to be the DistributedDataParallel module, got {type(model).__name__}'
            )

    def first_pass(self) -> AbstractContextManager[Any]:
        """The context of pass 1."""
        return nullcontext() if self.ddp is None else self.ddp.no_sync()

    def second_pass(self) -> AbstractContextManager[Any]:
        """The context of pass 2."""
        return self.ddp.no_sync() if self.reduces_d else nullcontext()

    def descend(self, setting: Setting, asc: Ascent) -> Update:
        """Form d, the same on all ranks."""
        if not self.ranks_differ:
            return descend(setting, asc)
        if not self.reduces_d and asc.moved:
            update = descend(setting, asc)
            if update.record.ascent_grad_norm is not None:  # g is each rank's own, h everybody's
                update.finite = torch.isfinite(update.record.ascent_grad_norm)
            return update
        max_norm = setting.choices.max_norm
        update = descend(replace(setting, choices=replace(setting.choices, max_norm=None)), asc)
        if isinstance(update.factor, Tensor):
            scale_(update.factor, update.d)
        self._mean_(update.d)
        d = collect(setting.groups)
        length = d.V.norm(d.tensors)
        return Update(d.tensors, clip_factor(max_norm, length), False, torch.isfinite(length), update.record)

    def _mean_(self, d: Vector) -> None:
        """Average d over the ranks, in place."""
        group = self.ddp.process_group
        size = torch.distributed.get_world_size(group)
        for x in d:
            torch.distributed.all_reduce(x, group=group)
            x.div_(size)


def _world() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1
