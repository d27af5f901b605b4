"""Batches of any structure: how many examples they hold, how to cast and how to split them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from fenland.step.guards.generators import is_generator

CURE = "pass a list of batches or a DataLoader, which can be gone through again and again"


def check_batches(batches: Any) -> None:
    """Raise unless `batches` can be gone through more than once.

    Raises:
        TypeError: one batch instead of several, or an iterator that is used up after one pass.
    """
    if isinstance(batches, (Tensor, Mapping)) or _is_record(batches):
        raise TypeError(f"batches = a {type(batches).__name__}: looks like one batch; pass [batch]")
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches = {batches!r}: must be an iterable of batches; {CURE}")
    if isinstance(batches, Iterator):
        raise TypeError(f"batches = a one-shot {type(batches).__name__}: it is used up after one pass; {CURE}")
    if isinstance(batches, (list, tuple)) and len(batches) > 1 and all(isinstance(each, Tensor) for each in batches):
        kinds = {(each.dtype, each.dim()) for each in batches}
        if isinstance(batches, tuple) or len(kinds) > 1:
            shapes = ", ".join(str(tuple(each.shape)) for each in batches[:3])
            raise TypeError(
                f"batches = a {type(batches).__name__} of tensors of shapes {shapes}: looks like one batch; "
                "pass [(...)], a list of batches"
            )


def check_size(size: Any) -> None:
    """Raise unless `size` is None or can be called with a batch."""
    if size is not None and not callable(size):
        raise TypeError(f"size = {size!r}: must be a function of a batch, such as lambda batch: len(batch[0]), or None")


def _is_record(batch: Any) -> bool:
    return dataclasses.is_dataclass(batch) and not isinstance(batch, type)


def _fields(record: Any) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}


def leaves(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch: a tensor, or lists, tuples, mappings and dataclasses of such."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for each in batch.values():
            yield from leaves(each)
    elif isinstance(batch, (list, tuple)):
        for each in batch:
            yield from leaves(each)
    elif _is_record(batch):
        yield from leaves(_fields(batch))


def examples(batch: Any) -> int | None:
    """Number of examples: the first dimension of its tensors; None where there is none, or where they differ."""
    sizes = {len(x) for x in leaves(batch) if x.dim() > 0}
    return sizes.pop() if len(sizes) == 1 else None


def weighed(batches: Iterable[Any], size: Callable[[Any], float] | None = None) -> Iterator[tuple[Any, float]]:
    """Each batch with its weight in the mean over all: its number of examples.

    A single batch needs none, so one that does not tell how many examples it holds has the weight 1.

    Args:
        batches: to go through.
        size: the weight of a batch; None takes `examples`.

    Raises:
        ValueError: a weight that is not finite or not positive, or several batches that do not tell how many examples
            they hold.
    """
    unknown: Any = None
    for number, batch in enumerate(batches):
        weight = examples(batch) if size is None else float(size(batch))
        if weight is None:
            unknown, weight = batch, 1
        if unknown is not None and number > 0:
            raise ValueError(
                f"batches: how many examples is {_said(unknown)}? Their numbers weight the mean of the losses; say it "
                "with size=lambda batch: ..."
            )
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"size of batch {number} = {weight}: must be a finite number > 0")
        yield batch, float(weight)


def _said(batch: Any) -> str:
    """What a batch is, for an error."""
    shapes = [str(tuple(x.shape)) for x in leaves(batch)]
    kind = f"a {type(batch).__name__}"
    return f"{kind} with tensors of shapes {', '.join(shapes[:4])}" if shapes else kind


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
    if _is_record(batch):
        return _like_record(batch, {name: rebuild(each, f) for name, each in _fields(batch).items()})
    return batch


def _like_record(batch: Any, made: dict[str, Any]) -> Any:
    """A dataclass object of the batch's own class, made without its constructor, which may want other names."""
    new = object.__new__(type(batch))
    if hasattr(batch, "__dict__"):
        new.__dict__.update(batch.__dict__)
    for name, value in made.items():
        object.__setattr__(new, name, value)
    return new


def _like_mapping(batch: Any, made: dict[Any, Any]) -> Any:
    """A mapping of the batch's own class (a tokenizer's, say), or a plain dict where the class cannot be made so."""
    try:
        return type(batch)(made)
    except TypeError:
        return made


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """The batch with its floating point tensors in `dtype`."""
    return rebuild(batch, lambda x: x.to(dtype) if x.is_floating_point() else x)


def usable(batch: Any) -> Any:
    """The batch with copies of the tensors that were made under `torch.inference_mode`, which autograd refuses."""
    return rebuild(batch, lambda x: x.clone()) if any(x.is_inference() for x in leaves(batch)) else batch


def fresh(batch: Any) -> Any:
    """The batch in lists and mappings of its own, from which a loss function may take what it likes (`batch.pop`)."""
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(fresh, batch))
    if type(batch) in (list, tuple):
        return type(batch)(map(fresh, batch))
    if type(batch) is dict:
        return {name: fresh(each) for name, each in batch.items()}
    return copy.copy(batch) if isinstance(batch, MutableMapping) or _is_record(batch) else batch


def generators_of(batches: Any) -> list[Any]:
    """Random generators that a loader and its samplers hold, which shuffle each pass anew."""
    found: dict[int, Any] = {}
    waiting, seen = [batches], set()
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or not hasattr(holder, "__dict__"):
            continue
        seen.add(id(holder))
        found |= {id(x): x for x in vars(holder).values() if is_generator(x)}
        waiting += [vars(holder).get(name) for name in ("sampler", "batch_sampler", "dataset")]
    return list(found.values())


def split(batch: Any, size: int) -> list[Any]:
    """The whole micro-batches of `size` examples in a batch; a remainder is left out.

    Raises:
        ValueError: the batch does not tell how many examples it holds.
    """
    total = examples(batch)
    if total is None:
        raise ValueError(f"m = {size}: cannot cut {_said(batch)}; all its tensors must have the examples first")

    def part(start: int) -> Any:
        return rebuild(batch, lambda x: x[start : start + size] if x.dim() else x)

    return [part(start) for start in range(0, total - size + 1, size)]
