"""What a rule may know beside the vectors it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fenland.algebra import Algebra


@dataclass(frozen=True)
class At:
    """The place and time at which a rule is asked.

    Attributes:
        V: the algebra that the vectors live in.
        step: number of the step, from 0.
        rho: the largest radius of the groups that move (unit of w).
        params: the parameters themselves, one a tensor; None outside an optimizer.
        names: their names, where the rule asked for them (`needs_names`).
        modules: the modules that own them, likewise.
        spend: the tensors of a may be overwritten, and then returned as the direction.
        fresh: whether a parameter's kept state was made in this step; None: of all or none, by `step`.
    """

    V: Algebra
    step: int = 0
    rho: float = 0.0
    params: Sequence[Tensor] | None = None
    names: Sequence[str] | None = None
    modules: Sequence[Any] | None = None
    fresh: Sequence[bool] | None = None
    spend: bool = False
