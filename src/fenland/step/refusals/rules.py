"""Choices that cannot work together, in two calls, or with these parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from fenland.rules import ParameterNames
from fenland.step.state import Rules, check_held


def check_rules(rules: Rules, base: torch.optim.Optimizer, names: ParameterNames) -> None:
    """Raise a ValueError where two choices cannot work together, or not with these parameters."""
    method = rules.method
    if not method.clean_gradient:
        if rules.nonfinite == "base_step":
            raise ValueError(f'nonfinite = "base_step": {method} has no gradient at w to fall back on; use "skip"')
        if rules.when.looks_at_gradient:
            raise ValueError(f"when = {rules.when}: looks at the gradient at w, which {method} never computes")
    if rules.ball.geometry is not None and (method.evaluations > 2 or method.searches):
        raise ValueError(f"method = {method}: several points around w need a flat ball, not {rules.ball}")
    if method.reads_dual and not rules.ball.is_norm:
        raise ValueError(f"method = {method}: reads the ball's dual norm, and {rules.ball} is no norm")
    if method.corrects and any(group.get("lr", 0.0) is None for group in base.param_groups):
        raise ValueError(
            f"method = {method}: adds lr times a correction, and {type(base).__name__} has lr = None; give it a lr"
        )
    rules.ball.check(names)
    method.check(names)
    for rule in rules:
        check_rule_held(rule, names.params)
    if method.reads_base and all(group.get("momentum") == 0 for group in base.param_groups):
        warnings.warn(
            f"method = {method}: climbs along the base's momentum, and {type(base).__name__} has momentum = 0, so that "
            "every step is one of the base alone; give the base a momentum, such as 0.9",
            stacklevel=2,
        )


def refuse_two_calls(rules: Rules) -> None:
    """Raise where the method asks for more gradients than two calls give, before anything moves."""
    method = rules.method
    if method.evaluations > 2 or method.per_sample:
        raise RuntimeError(f"ascend(): {method} evaluates more than one gradient at w + e; use step(closure)")
    if method.searches:
        raise RuntimeError(f"ascend(): {method} evaluates more points; use step(closure)")


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
