"""What data parallelism does to each pass: the only file that knows ranks.

Local ascent is the recipe of Foret et al. 2021, section 4.1 (each accelerator perturbs by its own gradient): m-SAM with
m = the batch of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fenland.algebra import Vector
from fenland.algebra.shards import is_dtensor
from fenland.rules.requests import Grad
from fenland.step.gradients import Gradient, collect
from fenland.step.state import Rules

BUCKET = 1 << 18  # elements; smaller gradients travel together (1 MiB in float32, as DDP's first bucket)


class Global:
    """Every pass is synchronised, if anything is: g and h are everybody's, and nothing is left to do."""

    ranks_differ: Literal[False] = False


class Local:
    """Each rank climbs along its own gradient.

    A pass whose request promises d = h (`final`) is synchronised by DDP. Any other step runs unsynchronised and
    averages d once: a rank's own gamma or g would drift the ranks apart. So does nonfinite = "base_step", which may
    fall back on a rank's own g.
    """

    ranks_differ: Literal[True] = True

    def __init__(self, ddp: nn.parallel.DistributedDataParallel, always_average: bool) -> None:
        self.ddp: Any = ddp
        self.always_average = always_average
        self._seen = False  # the first pass of a static graph must be synchronised, once

    def context(self, request: Grad) -> AbstractContextManager[Any]:
        """The context of the pass that answers this request."""
        if self.ddp.static_graph and not self._seen:
            self._seen = True
            return nullcontext()
        return nullcontext() if request.final and not self.always_average else self.ddp.no_sync()

    def must_average(self, last: Grad | None) -> bool:
        """Whether d is averaged over the ranks here, `last` being the request of the last pass."""
        return self.always_average or last is None or not last.final

    def average(self, groups: Sequence[dict[str, Any]]) -> Gradient:
        """Average `p.grad` over the ranks."""
        group = self.ddp.process_group
        if self.ddp.find_unused_parameters:
            _fill_unused(groups, group)
        size = torch.distributed.get_world_size(group)
        d = collect(groups)
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
        return collect(groups)


def reduction(sync: str, model: nn.Module | None, rules: Rules, params: Sequence[Tensor]) -> Global | Local:
    """How this optimizer's passes are reduced.

    Raises:
        ValueError: sync="local" cannot work here; the message says why and names the cure.
        TypeError: FSDP1 parameters.
    """
    _refuse_flat(params)
    if sync == "global" or world() == 1:
        return Global()
    if rules.when.looks_at_gradient:
        raise ValueError(
            f'sync = "local": {rules.when} decides by the gradient, and each rank has its own, so some would ascend '
            'while others wait for them; use sync="global"'
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
    return Local(model, rules.nonfinite == "base_step")


def mean_over_ranks(loss: Tensor) -> float:
    """The loss added up over all ranks, so that all of them find the same point the highest."""
    if world() > 1:
        loss = loss.clone()
        torch.distributed.all_reduce(loss)
    return float(loss)


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


def _fill_unused(groups: Sequence[dict[str, Any]], group: Any) -> None:
    """Give a zero gradient to parameters that other ranks used; what no rank used keeps none, as under DDP."""
    params = [p for g in groups for p in g["params"] if p.requires_grad]
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


def world() -> int:
    """The number of ranks; 1 outside torch.distributed."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1
