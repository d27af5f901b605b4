"""One method of each kind: ranks, trainers and the lab see of a method what it declares, and nothing else.

A test of them runs in the fast tier with the first method of each kind, in the slow tier with all (decision 93). What a
method computes itself is tested with every method in both tiers: tests/variants, tests/contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def kind(rules: Any) -> tuple[Any, ...]:
    """What the engine is told of a method and its `when`, from the rules of an optimizer; None for a plain one."""
    if rules is None:
        return ()
    method, combine = rules.method, getattr(rules.method, "combine", None)
    told = method.clean_gradient, method.per_sample, bool(method.searches), bool(method.keeps), bool(method.reads_base)
    return type(method), getattr(combine, "reads", None), *told, type(rules.when)


def of_each_kind(names: Iterable[str], rules_of: Callable[[str], Any]) -> list[Any]:
    """The names as parameters; those whose kind another one before them has wait for the slow tier."""
    seen: set[tuple[Any, ...]] = set()
    found = []
    for name in names:
        own = kind(rules_of(name))
        found.append(pytest.param(name, marks=[pytest.mark.slow] if own in seen else []))
        seen.add(own)
    return found
