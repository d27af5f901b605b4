"""What an optimizer is made of: its rules, the radius of each group, and what lives between its steps.

A radius of 1e300 is infinite among float32 weights, so numbers are asked whether the parameters' dtype holds them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor

from fenland.rules import Ball, Method, Radius, When, current_radius

SAFE = torch.finfo(torch.float16).max  # every dtype that is trained in holds this much, so that a step asks no more


def check_held(name: str, value: float, params: Iterable[Any]) -> None:
    """Raise a ValueError where one of these parameters has a dtype in which `value` is infinite.

    Args:
        name: of the number, for the message.
        value: finite in float64.
        params: tensors; those of whole numbers are left out.
    """
    if abs(value) <= SAFE:
        return
    for dtype in {p.dtype for p in params if p.is_floating_point() or p.is_complex()}:
        largest = torch.finfo(dtype).max
        if abs(value) > largest:
            raise ValueError(
                f"{name} = {value!r}: the parameters are {str(dtype).removeprefix('torch.')}, which holds numbers up "
                f"to {largest:.2g}; give a smaller number, or keep the parameters in a wider dtype"
            )


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
        _checked(self.rho if radius is None else radius, count, name, group["params"], group.get("lr"))

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
            usual = type(rho) is float and 0.0 <= rho <= SAFE
            radii.append(rho if usual else _checked(rho, count, f"rho of group {k}", group["params"]))
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


def _checked(rho: Any, count: int, name: str, params: list[Tensor], lr: object = None) -> float:
    """The value of a radius, if it is one at all and the parameters' dtype holds it."""
    value = current_radius(rho, count, name, lr)
    check_held(name, value, params)
    return value
