"""Batches of any structure: how many examples they hold, how to cast and how to split them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

CURE = "pass a list of batches or a DataLoader, which can be gone through again and again"


def check_batches(batches: Any) -> None:
    """Raise unless `batches` can be gone through more than once.

    Raises:
        TypeError: one batch instead of several, or an iterator that is used up after one pass.
    """
    if isinstance(batches, (Tensor, Mapping)):
        raise TypeError(f"batches = a {type(batches).__name__}: looks like one batch; pass [batch]")
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches = {batches!r}: must be an iterable of batches; {CURE}")
    if isinstance(batches, Iterator):
        raise TypeError(f"batches = a one-shot {type(batches).__name__}: it is used up after one pass; {CURE}")


def leaves(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch: a tensor, or lists, tuples, mappings and objects with `.values()` of such."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for each in batch.values():
            yield from leaves(each)
    elif isinstance(batch, (list, tuple)):
        for each in batch:
            yield from leaves(each)


def examples(batch: Any) -> int:
    """Number of examples: the first dimension of the first tensor that has one; 1 where there is none."""
    return next((len(x) for x in leaves(batch) if x.dim() > 0), 1)


def rebuild(batch: Any, f: Callable[[Tensor], Any]) -> Any:
    """The batch with f applied to each tensor; its structure stays, what is no tensor stays too."""
    if isinstance(batch, Tensor):
        return f(batch)
    if isinstance(batch, Mapping):
        made = {name: rebuild(each, f) for name, each in batch.items()}
        return made if type(batch) is dict else _like_mapping(batch, made)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(rebuild(each, f) for each in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(rebuild(each, f) for each in batch)
    return batch


def _like_mapping(batch: Any, made: dict[Any, Any]) -> Any:
    """A mapping of the batch's own class (a tokenizer's, say), or a plain dict where the class cannot be made so."""
    try:
        return type(batch)(made)
    except TypeError:
        return made


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its floating point tensors in `dtype`."""
    return rebuild(batch, lambda x: x.to(dtype) if x.is_floating_point() else x)


def split(batch: Any, size: int) -> list[Any]:
    """The whole micro-batches of `size` examples in a batch; a remainder is left out.

    Tensors whose first dimension is the batch's are cut; all else goes into each part as it is.
    """
    total = examples(batch)

    def part(start: int) -> Any:
        return rebuild(batch, lambda x: x[start : start + size] if x.dim() and len(x) == total else x)

    return [part(start) for start in range(0, total - size + 1, size)]
