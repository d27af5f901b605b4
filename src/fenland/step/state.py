"""The rules of an optimizer, and what lives between its steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fenland.rules import Ball, Method, When


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
