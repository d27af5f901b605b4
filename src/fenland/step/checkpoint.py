"""fenland's own state in a checkpoint: beside the base's, under names that start with `fenland.`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fenland.algebra.shards import is_dtensor, local

PREFIX = "fenland."
StateDict = dict[str, Any]


def pack(base_state: StateDict, rule_state: dict[int, dict[str, Tensor]], scalars: dict[str, Any]) -> StateDict:
    """The base's state dict with fenland's per-parameter state and scalars added.

    Args:
        base_state: `base.state_dict()`; it is not changed.
        rule_state: by parameter index, kept vectors by name.
        scalars: plain numbers, written into every group.
    """
    state = {k: dict(v) if isinstance(v, dict) else v for k, v in base_state["state"].items()}
    for index, kept in rule_state.items():
        state.setdefault(index, {}).update({PREFIX + name: value for name, value in kept.items()})
    groups = [{**g, **{PREFIX + name: value for name, value in scalars.items()}} for g in base_state["param_groups"]]
    return {**base_state, "state": state, "param_groups": groups}


def unpack(state_dict: StateDict) -> tuple[StateDict, dict[Any, dict[str, Tensor]], dict[str, Any]]:
    """Split a state dict, fenland's or a plain base's, into (base's part, rule state by index, scalars)."""
    rule_state: dict[Any, dict[str, Tensor]] = {}
    base_part: dict[Any, Any] = {}
    for index, values in state_dict["state"].items():
        if not isinstance(values, dict):
            base_part[index] = values
            continue
        own = {k[len(PREFIX) :]: v for k, v in values.items() if isinstance(k, str) and k.startswith(PREFIX)}
        rest = {k: v for k, v in values.items() if not (isinstance(k, str) and k.startswith(PREFIX))}
        if own:
            rule_state[index] = own
        if rest or not own:
            base_part[index] = rest
    groups, scalars = [], {}
    for group in state_dict["param_groups"]:
        groups.append({k: v for k, v in group.items() if not k.startswith(PREFIX)})
        scalars.update({k[len(PREFIX) :]: v for k, v in group.items() if k.startswith(PREFIX)})
    return {**state_dict, "state": base_part, "param_groups": groups}, rule_state, scalars


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
