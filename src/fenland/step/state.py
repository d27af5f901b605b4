"""What an optimizer is made of: its rules, the radius of each group, and what lives between its steps.

In a checkpoint fenland's own state stands beside the base's, under names that start with `fenland.`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor

from fenland.algebra.shards import is_dtensor, local
from fenland.rules import Ball, Method, Radius, When, current_radius


@dataclass(frozen=True)
class Rules:
    """The choices and options of a step, checked by the optimizer."""

    ball: Ball
    method: Method
    when: When
    max_norm: float | None = None
    nonfinite: str = "skip"
    perturb: str = "auto"
    record_every: int | None = None

    def __iter__(self) -> Iterator[Any]:
        """The rules proper, without the options."""
        return iter((self.ball, self.method, self.when))


@dataclass
class Memory:
    """What lives between steps.

    Attributes:
        count: steps taken (skipped ones that the host knows of do not count).
        numbers: of the method and of `when`, by name.
        kept: vectors of the method, by parameter and name.
    """

    count: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    kept: dict[Tensor, dict[str, Tensor]] = field(default_factory=dict)

    def commit(self, numbers: dict[str, float], vectors: dict[str, dict[Tensor, Tensor]]) -> None:
        """Take over what a step that has been taken has put."""
        self.count += 1
        self.numbers = numbers
        for name, values in vectors.items():
            for p, x in values.items():
                self.kept.setdefault(p, {})[name] = x


# What was written into the groups of a base, so that wrapping it again with another rho is not silently ignored.
_written: weakref.WeakKeyDictionary[torch.optim.Optimizer, Radii] = weakref.WeakKeyDictionary()


class Radii:
    """The radii of one optimizer's groups.

    Args:
        base: the wrapped optimizer.
        rho: of groups that bring none of their own, a number or a callable of the step.
        count: number of the step, from 0.

    Raises:
        ValueError, TypeError: a radius is out of range; nothing has been written then.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: Radius, count: int = 0) -> None:
        self.rho = rho
        self._known = list(base.param_groups)
        self._callables: list[tuple[dict[str, Any], Radius]] = []  # groups are no keys: they are found by identity
        self._given: list[tuple[dict[str, Any], float]] = []
        before = _written.get(base)
        self._own_radii = [self._own(group, before) for group in base.param_groups]
        current_radius(rho, count, "rho", base.param_groups[0].get("lr") if base.param_groups else None)
        for k, (group, radius) in enumerate(zip(base.param_groups, self._own_radii, strict=True)):
            self._check(k, group, radius, count)

    def write(self, base: torch.optim.Optimizer) -> Radii:
        """Write the numbers into the groups, once nothing else can refuse this optimizer."""
        for group, radius in zip(base.param_groups, self._own_radii, strict=True):
            self._set(group, radius, 0)
        _written[base] = self
        return self

    def _own(self, group: dict[str, Any], before: Radii | None) -> Radius | None:
        """The group's own radius; None where it has none, or only what fenland gave it at an earlier wrapping."""
        if "rho" not in group:
            return None
        if before is not None:
            kept = before.callable_of(group)
            if kept is not None and kept is not before.rho:
                return kept
            if any(group is g and group["rho"] == given for g, given in before._given):
                return None
        radius: Radius = group["rho"]
        return radius

    def check(self, k: int, group: dict[str, Any], count: int) -> None:
        """Raise where the k-th group, which is to be added, has a radius out of range."""
        self._check(k, group, group.get("rho"), count)

    def _check(self, k: int, group: dict[str, Any], radius: Radius | None, count: int) -> None:
        name = "rho" if radius is None else f"rho of group {k}"
        current_radius(self.rho if radius is None else radius, count, name, group.get("lr"))

    def _set(self, group: dict[str, Any], radius: Radius | None, count: int) -> None:
        value = self.rho if radius is None else radius
        if callable(value):
            self._callables.append((group, value))
        group["rho"] = current_radius(value, count, lr=group.get("lr"))
        if radius is None or callable(value):
            self._given.append((group, group["rho"]))

    def add(self, group: dict[str, Any], count: int) -> None:
        """Take in a new group; with its own rho where it brings one."""
        self._set(group, group.get("rho"), count)
        self._known.append(group)

    def callable_of(self, group: dict[str, Any]) -> Radius | None:
        """The group's callable, or None."""
        return next((radius for g, radius in self._callables if g is group), None)

    def now(self, groups: list[dict[str, Any]], count: int) -> list[float]:
        """rho of each group at step `count`; groups whose radius is a callable get its value."""
        if not all(map(is_, self._known, groups)) and set(map(id, self._known)).isdisjoint(map(id, groups)):
            self.relink(groups)  # somebody has loaded a state into the base
        self._known = groups.copy()
        radii = []
        for k, group in enumerate(groups):
            own = self.callable_of(group) if self._callables else None
            if own is not None or "rho" not in group:
                group["rho"] = current_radius(self.rho if own is None else own, count, lr=group.get("lr"))
            rho = group["rho"]
            usual = type(rho) is float and 0.0 <= rho < math.inf
            radii.append(rho if usual else current_radius(rho, count, f"rho of group {k}"))
        return radii

    def relink(self, new: list[dict[str, Any]]) -> None:
        """After a load the base has new dictionaries in the old order: each takes over its predecessor's radius."""
        for before, after in zip(self._known, new, strict=False):
            after.setdefault("rho", before["rho"])
            self._callables = [(after if g is before else g, radius) for g, radius in self._callables]
            self._given = [(after if g is before else g, given) for g, given in self._given]
        self._known = list(new)

    def set_all(self, groups: list[dict[str, Any]], rho: Radius, count: int) -> None:
        """Give every group this radius."""
        for k, group in enumerate(groups):
            self._check(k, group, rho, count)
        self.rho, self._callables, self._given = rho, [], []
        for group in groups:
            self._set(group, None, count)


# In a checkpoint.

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


def unpack(state_dict: StateDict, base: torch.optim.Optimizer, starts: dict[str, float]) -> Loaded:
    """Split a state dict, fenland's or a plain base's.

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
            kept[p] = {name: _fitted(x, p, name) for name, x in own[i].items()}
    numbers = {**starts, **{name: value for name, value in found.items() if name != "count"}}
    base_state = {**state_dict, "state": base_part, "param_groups": [group for group, _ in split]}
    for part in own_parts:
        del base_state[part]
    return Loaded(base_state, _count(found.get("count", 0)), numbers, kept)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < 0:
        raise ValueError(f"{PREFIX}count in the state_dict is {value!r}: must be a whole number >= 0")
    return int(value)


def _split(values: dict[Any, Any]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """(the base's entries, fenland's without their prefix)."""
    mine = {k[len(PREFIX) :]: v for k, v in values.items() if isinstance(k, str) and k.startswith(PREFIX)}
    rest = {k: v for k, v in values.items() if not (isinstance(k, str) and k.startswith(PREFIX))}
    return rest, mine


def _fitted(value: Any, param: Tensor, name: str) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != param.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"{PREFIX}{name} in the state_dict is {got!r}: its parameter has shape {tuple(param.shape)}")
    return fitted(value, param)


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
