"""Numbers that the parameters' dtype must hold: a radius of 1e300 is infinite among float32 weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

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


def check_rule_held(rule: Any, params: Iterable[Tensor]) -> None:
    """Raise a ValueError where a number of a rule, or of a rule or schedule inside it, is infinite in their dtype."""
    params = list(params)
    for name, value in _numbers(rule):
        check_held(name, value, params)


def _numbers(rule: Any) -> Iterator[tuple[str, float]]:
    """The real numbers that a rule is made of, with their names; counts and seeds are none."""
    for field in fields(rule) if is_dataclass(rule) else ():
        value = getattr(rule, field.name)
        for x in value if isinstance(value, (tuple, list)) else (value,):
            if is_dataclass(x):
                yield from _numbers(x)
            elif isinstance(x, (int, float)) and "float" in str(field.type) and abs(x) != math.inf:
                yield f"{field.name} of {type(rule).__name__}", x  # whether it may be infinite is the rule's to say
