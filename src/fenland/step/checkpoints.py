"""What a checkpoint holds: the base's state with fenland's own beside it, under names that start with `fenland.`.

What is loaded is looked at before anything changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.algebra.shards import is_dtensor, local
from fenland.rules import ParameterNames, current_radius
from fenland.step.state import Memory

PREFIX = "fenland."
_PARTS = {"state", "param_groups"}
OWN_PARTS = "own_parts"  # which of them a base's own state dict lacks
StateDict = dict[str, Any]


@dataclass
class Loaded:
    """A checkpoint, taken apart and checked: what the base gets, and fenland's own."""

    base_part: StateDict
    count: int
    numbers: dict[str, float]
    kept: dict[Tensor, dict[str, Tensor]]


def pack(base: torch.optim.Optimizer, memory: Memory) -> StateDict:
    """The base's state dict with fenland's vectors in each parameter's state and its numbers in each group."""
    packed: StateDict = base.state_dict()
    lacks = _PARTS - packed.keys()
    if lacks:  # a base that packs in a way of its own (Lookahead has no "state")
        whole = {"params": list(range(sum(len(group["params"]) for group in base.param_groups)))}
        groups = [{**group, PREFIX + OWN_PARTS: sorted(lacks)} for group in packed.get("param_groups", [whole])]
        packed = {"state": {}, **packed, "param_groups": groups}
    return _added(packed, base, memory)


def _added(packed: StateDict, base: torch.optim.Optimizer, memory: Memory) -> StateDict:
    index = {p: i for i, p in enumerate(p for group in base.param_groups for p in group["params"])}
    state = {k: dict(v) if isinstance(v, dict) else v for k, v in packed["state"].items()}
    for p, vectors in memory.kept.items():
        if p in index:
            state.setdefault(index[p], {}).update({PREFIX + name: saved(x, p) for name, x in vectors.items()})
    numbers = {PREFIX + name: value for name, value in {"count": memory.count, **memory.numbers}.items()}
    return {**packed, "state": state, "param_groups": [{**group, **numbers} for group in packed["param_groups"]]}


def unpack(
    state_dict: StateDict, base: torch.optim.Optimizer, starts: dict[str, float], names: ParameterNames
) -> Loaded:
    """Split a state dict, fenland's or a plain base's.

    Args:
        state_dict: as `pack` made it, or a plain base's.
        base: the wrapped optimizer.
        starts: numbers that a state dict may lack.
        names: of the parameters, for messages.

    Raises:
        ValueError: it is no optimizer's state, or a number or vector in it cannot be this optimizer's.
    """
    if "state" not in state_dict or "param_groups" not in state_dict:
        raise ValueError(
            f"state_dict has the keys {sorted(map(str, state_dict))}: an optimizer's has 'state' and 'param_groups'"
        )
    base_part: dict[Any, Any] = {}
    own: dict[Any, dict[str, Tensor]] = {}
    for index, values in state_dict["state"].items():
        rest, mine = _split(values) if isinstance(values, dict) else (values, {})
        own[index] = mine
        if rest or not mine:
            base_part[index] = rest
    split = [_split(group) for group in state_dict["param_groups"]]
    found: dict[str, Any] = {name: value for _, numbers in split for name, value in numbers.items()}
    own_parts = found.pop(OWN_PARTS, ())
    for group, _ in split:
        if "rho" in group:
            current_radius(group["rho"], 0, "rho in the state_dict")
    ids = [i for group, _ in split for i in group["params"]]
    params = [p for group in base.param_groups for p in group["params"]]
    kept = {}
    if not own_parts and [len(group["params"]) for group, _ in split] != [
        len(group["params"]) for group in base.param_groups
    ]:
        own = {}  # the base says what does not fit
    for i, p in zip(ids, params, strict=False):  # the base says where lengths differ
        if own.get(i):
            kept[p] = {name: _fitted(x, p, name, names) for name, x in own[i].items()}
    count = _count(found.pop("count", 0))
    numbers = {**starts, **{name: _number(value, name, starts) for name, value in found.items()}}
    base_state = {**state_dict, "state": base_part, "param_groups": [group for group, _ in split]}
    for part in own_parts:
        del base_state[part]
    return Loaded(base_state, count, numbers, kept)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < 0:
        raise ValueError(f"{PREFIX}count in the state_dict is {value!r}: must be a whole number >= 0")
    return int(value)


def _number(value: Any, name: str, starts: dict[str, float]) -> Any:
    usual = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not usual and value != starts.get(name, 0.0):
        raise ValueError(f"{PREFIX}{name} in the state_dict is {value!r}: must be a finite number")
    return value


def _split(values: dict[Any, Any]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """(the base's entries, fenland's without their prefix)."""
    mine = {k[len(PREFIX) :]: v for k, v in values.items() if isinstance(k, str) and k.startswith(PREFIX)}
    rest = {k: v for k, v in values.items() if not (isinstance(k, str) and k.startswith(PREFIX))}
    return rest, mine


def _fitted(value: Any, param: Tensor, name: str, names: ParameterNames) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != param.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"{PREFIX}{name} in the state_dict is {got!r}: its parameter has shape {tuple(param.shape)}")
    part = fitted(value, param)
    bad = int((~torch.isfinite(part)).sum())
    if bad:
        raise ValueError(
            f"{PREFIX}{name} of {names.told(param)} in the state_dict holds {bad} numbers that are infinite or NaN, so "
            "that no step could be taken: load an earlier checkpoint, or take the entries of that name out of "
            'state_dict["state"], and the method begins them anew'
        )
    return part


def saved(value: Tensor, param: Tensor) -> Tensor:
    """A kept vector as a checkpoint holds it: sharded as its parameter is, so that it can be put together again."""
    if not is_dtensor(param):
        return value
    from torch.distributed.tensor import DTensor

    whole: Any = param
    made: Tensor = DTensor.from_local(
        value, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
    return made


def fitted(value: Tensor, param: Tensor) -> Tensor:
    """A copy of a loaded vector as the engine keeps it: this process's part, on its parameter's device."""
    if not is_dtensor(param):
        return value.detach().clone().to(param.device)
    whole: Any = param
    if not is_dtensor(value) and value.shape == whole.shape:
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(param.device), whole.device_mesh, whole.placements)
    elif is_dtensor(value):
        value = value.redistribute(whole.device_mesh, whole.placements)  # type: ignore[attr-defined]
    return local(value.detach()).clone()
