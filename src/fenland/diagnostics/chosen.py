"""What is differentiated: the parameters that are chosen, of the model or of a copy in another dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fenland.algebra.shards import any_dtensor

Chosen: TypeAlias = "Callable[[str], bool] | Sequence[str] | None"


def chosen(model: nn.Module, wanted: Chosen) -> tuple[list[str], list[nn.Parameter]]:
    """Names and tensors of the parameters that are differentiated."""
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(f"model: {lazy[0]} is lazy and has no shape yet; run one batch through the model first")
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not free:
        raise ValueError("model: none of its parameters requires a gradient; there is nothing to differentiate")
    if wanted is not None and not callable(wanted):
        wanted = _named(wanted, free).__contains__
    kept = {name: p for name, p in free.items() if wanted is None or wanted(name)}
    if not kept:
        raise ValueError(f"parameters: none chosen; the model has {', '.join(free)}")
    params = list(kept.values())
    if any_dtensor(params):
        raise ValueError("model: its parameters are sharded (DTensor); load the checkpoint into a whole model")
    places: dict[int, str] = {}
    for name, p in kept.items():
        _check_real(name, p)
        if p.numel() and p.device.type != "meta":
            other = places.setdefault(p.data_ptr(), name)
            if other != name:
                raise ValueError(
                    f"model: {other} and {name} are two parameters in the same memory, so that moving one moves the "
                    "other; tie them as one parameter (a.weight = b.weight)"
                )
    return list(kept), params


def _named(wanted: Any, free: Mapping[str, Tensor]) -> set[str]:
    """Names of parameters, checked."""
    if not isinstance(wanted, Iterable):
        raise TypeError(f"parameters = {wanted!r}: must be a list of names, a function of a name, or None")
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"parameters: has a {type(name).__name__} in it; must be a list of names, such as {next(iter(free))!r}"
            )
        if name not in free:
            raise ValueError(f"parameters = {name!r}: must be one of {', '.join(free)}")
    return set(names)


def _check_real(name: str, p: Tensor) -> None:
    """Raise where a parameter has no gradient that a measurement can use."""
    if p.is_complex():
        raise TypeError(
            f"model: {name} is complex, which is not supported here; hold it as a real parameter and use "
            f"torch.view_as_complex in forward, or leave it out with parameters="
        )
    if p.is_inference():
        raise ValueError(
            f"model: {name} was made under torch.inference_mode, where autograd refuses it; load it outside"
        )


def copied(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in `dtype`. Weights that a hook makes anew at each forward (`prune`, `weight_norm`) have a graph still."""
    made = [x for module in model.modules() for x in vars(module).values() if isinstance(x, Tensor) and not x.is_leaf]
    with torch.inference_mode(False):
        return copy.deepcopy(model, {id(x): x.detach().clone() for x in made}).to(dtype)
