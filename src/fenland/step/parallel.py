"""Whose gradient is climbed along under data parallelism: everybody's ("global") or each rank's own ("local").

Local ascent is the recipe of Foret et al. 2021, section 4.1 (each accelerator perturbs by its own gradient): m-SAM with
m = the batch of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra import Vector
from fenland.algebra.shards import is_dtensor
from fenland.rules import AtAscentPoint
from fenland.step.ascent import Ascent
from fenland.step.descent import Update, descend
from fenland.step.gradients import collect
from fenland.step.handover import clip_factor, multiply_
from fenland.step.memory import Choices, Setting

BUCKET = 1 << 18  # elements; smaller gradients travel together (1 MiB in float32, as DDP's first bucket)


class Parallel:
    """What distinguishes local from global ascent.

    With d = h, only pass 1 is unsynchronised and DDP reduces h. Any other combine runs both passes unsynchronised and
    reduces d once: a rank's own gamma or g would drift the ranks apart. So does nonfinite = "base_step", which may
    fall back on a rank's own g.
    """

    def __init__(self, sync: str, model: nn.Module | None, choices: Choices, params: Sequence[Tensor]) -> None:
        _refuse_flat(params)
        self.ranks_differ = sync == "local" and _world() > 1
        self.ddp: Any = model if self.ranks_differ else None
        plain = isinstance(choices.combine, AtAscentPoint) and choices.nonfinite != "base_step"
        self.reduces_d = self.ranks_differ and not plain
        self._met: Any = None  # the static graph whose first pass was synchronised
        if not self.ranks_differ:
            return
        if choices.when.looks_at_gradient:
            raise ValueError(
                f'sync = "local": {choices.when} would look at each rank\'s own gradient, and the ranks would part; '
                'use sync="global"'
            )
        if any(is_dtensor(p) for p in params):
            raise ValueError(
                'sync = "local": parameters are sharded (FSDP), and without gradient reduction no rank has a whole '
                'gradient to climb along; use sync="global"'
            )
        if not isinstance(model, nn.parallel.DistributedDataParallel):
            raise ValueError(
                f'sync = "local": needs model= to be the DistributedDataParallel module, got {type(model).__name__}'
            )
        if choices.when.looks_at_gradient:
            raise ValueError(
                f'sync = "local": {choices.when} decides by the gradient, and each rank has its own, so some would '
                'ascend while others wait for them; use sync="global"'
            )

    def first_pass(self) -> AbstractContextManager[Any]:
        """The context of pass 1; a static graph must see one synchronised backward before anything else."""
        if self.ddp is not None and self.ddp.static_graph and self._met is not self.ddp:
            self._met = self.ddp
            return nullcontext()
        return nullcontext() if self.ddp is None else self.ddp.no_sync()

    def second_pass(self) -> AbstractContextManager[Any]:
        """The context of pass 2."""
        return self.ddp.no_sync() if self.reduces_d else nullcontext()

    def reduces(self, asc: Ascent) -> bool:
        """Whether this step's d is averaged here (else `p.grad` holds what all ranks share)."""
        return self.reduces_d or (self.ranks_differ and not asc.moved)

    def descend(self, setting: Setting, asc: Ascent) -> Update:
        """Form d, the same on all ranks."""
        if not self.ranks_differ:
            return descend(setting, asc)
        if not self.reduces(asc):
            update = descend(setting, asc)
            if update.record.ascent_grad_norm is not None:  # g is each rank's own, h everybody's
                update.finite = torch.isfinite(update.record.ascent_grad_norm)
            return update
        max_norm = setting.choices.max_norm
        update = descend(replace(setting, choices=replace(setting.choices, max_norm=None)), asc)
        if update.corrections:
            raise ValueError(
                'sync = "local": a combine that corrects w after the base\'s step (decoupled WSAM) would add each '
                'rank\'s own correction; use sync="global"'
            )
        multiply_(update.factor, update.d)
        self._mean_(setting)
        d = collect(setting.groups)
        length = d.V.norm(d.tensors)
        return Update(d.tensors, clip_factor(max_norm, length), False, torch.isfinite(length), update.record)

    def _mean_(self, setting: Setting) -> None:
        """Average `p.grad` over the ranks."""
        group = self.ddp.process_group
        if self.ddp.find_unused_parameters:
            _fill_unused(setting, group)
        size = torch.distributed.get_world_size(group)
        d = collect(setting.groups)
        d.make_writable()
        for bucket in _buckets(d.tensors):
            flat = bucket[0] if len(bucket) == 1 else torch.cat([x.reshape(-1) for x in bucket])
            flat = flat.contiguous()
            torch.distributed.all_reduce(flat, group=group)
            flat.div_(size)
            begin = 0
            for x in bucket:
                x.copy_(flat.view(-1)[begin : begin + x.numel()].view(x.shape))
                begin += x.numel()
        # DDP broadcasts buffers at the forward after a synchronised one; both passes ran without.
        self.ddp.require_forward_param_sync = True


def _buckets(tensors: Vector) -> list[Vector]:
    """Small tensors of one dtype and device together, large ones alone, in the same order on every rank."""
    done: list[Vector] = []
    filling: dict[tuple[torch.dtype, torch.device], Vector] = {}
    for x in tensors:
        if x.numel() >= BUCKET:
            done.append([x])
            continue
        bucket = filling.setdefault((x.dtype, x.device), [])
        bucket.append(x)
        if sum(y.numel() for y in bucket) >= BUCKET:
            done.append(filling.pop((x.dtype, x.device)))
    return done + list(filling.values())


def _fill_unused(setting: Setting, group: Any) -> None:
    """Give a zero gradient to parameters that other ranks used; what no rank used keeps none, as under DDP."""
    params = [p for g in setting.groups for p in g["params"] if p.requires_grad]
    used = torch.tensor([p.grad is not None for p in params], dtype=torch.uint8, device=params[0].device)
    torch.distributed.all_reduce(used, op=torch.distributed.ReduceOp.MAX, group=group)
    for p, somewhere in zip(params, used.tolist(), strict=True):
        if somewhere and p.grad is None:
            p.grad = torch.zeros_like(p)


def _refuse_flat(params: Sequence[Tensor]) -> None:
    """FSDP1's parameters are pieces of one flat tensor and do not say so: every norm would be one rank's own."""
    if any(getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False) for p in params):
        raise TypeError(
            "the parameters belong to FullyShardedDataParallel (FSDP1), whose shards do not know how they are "
            "distributed; use torch.distributed.fsdp.fully_shard (FSDP2)"
        )


def _world() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1
