"""Sharded parameters: their local tensors, and how partial sums over them become whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Layout: TypeAlias = "tuple[Any, tuple[int, ...]] | None"  # (mesh, its dimensions that shard the tensor); None: whole


def is_dtensor(t: Tensor) -> bool:
    """Whether t is a DTensor; never imports the distributed package for it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(t, module.DTensor)


PLAIN = frozenset((Tensor, torch.nn.Parameter))  # types of tensors that are no DTensors: the quick question


def any_dtensor(tensors: Sequence[Tensor]) -> bool:
    """Whether any of them is a DTensor; looks at their types, not at each tensor."""
    if PLAIN.issuperset(map(type, tensors)):
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(issubclass(kind, module.DTensor) for kind in set(map(type, tensors)))


def local(t: Tensor) -> Tensor:
    """The tensor that this process holds of t: t itself unless it is a DTensor."""
    if not is_dtensor(t):
        return t
    shard: Tensor = t._local_tensor if not t.requires_grad else t.detach()._local_tensor  # type: ignore[attr-defined]
    return shard


def layouts(tensors: Sequence[Tensor]) -> list[Layout] | None:
    """How each tensor is sharded; None where none is a DTensor.

    Raises:
        ValueError: a tensor holds partial sums, whose norm is not known without communication.
    """
    if PLAIN.issuperset(map(type, tensors)) or not any_dtensor(tensors):
        return None
    return [_layout(t) for t in tensors]


def _layout(t: Any) -> Layout:
    if not is_dtensor(t):
        return None
    if any(p.is_partial() for p in t.placements):
        raise ValueError(
            f"a gradient is a DTensor with placements {t.placements}: fenland needs whole or sharded gradients; "
            "redistribute it to Shard or Replicate before the step"
        )
    return t.device_mesh, tuple(i for i, p in enumerate(t.placements) if p.is_shard())


def complete(parts: Sequence[Tensor], of: Sequence[Layout], op: str) -> Tensor:
    """Reduce partial results, one a tensor, over tensors and over the mesh dimensions that shard each of them.

    A dimension that replicates a tensor adds nothing, so a hybrid mesh (HSDP) counts each element once.

    Args:
        parts: 0-d tensors, one for each local tensor.
        of: the layout of each.
        op: "sum" or "max".
    """
    from torch.distributed import ReduceOp, all_reduce

    device = parts[0].device
    reduce = torch.sum if op == "sum" else torch.amax
    kinds: list[Layout] = []
    for layout in of:
        if layout not in kinds:
            kinds.append(layout)
    wholes = []
    for kind in kinds:
        whole = reduce(torch.stack([p.to(device) for p, layout in zip(parts, of, strict=True) if layout == kind]))
        if kind is not None:
            mesh, dims = kind
            for dim in dims:
                all_reduce(whole, op=ReduceOp.SUM if op == "sum" else ReduceOp.MAX, group=mesh.get_group(dim))
        wholes.append(whole)
    return reduce(torch.stack(wholes))
