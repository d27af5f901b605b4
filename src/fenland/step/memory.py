"""What a step needs to know, and what lives between steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.algebra import Lists
from fenland.rules import AtAscentPoint, Ball, Combine, Gradient, Source, When
from fenland.rules.context import At
from fenland.step.census import Census
from fenland.step.storage import Roster
from fenland.step.travel import Journey

LOW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Choices:
    """The five choices and the options of a step, checked by the optimizer."""

    ball: Ball
    source: Source
    combine: Combine
    when: When
    max_norm: float | None = None
    nonfinite: str = "skip"
    travel: str = "auto"
    record_every: int | None = None

    @property
    def keeps_g(self) -> bool:
        """Whether g must survive the ascent: for d, or as what "base_step" falls back on."""
        return self.combine.keeps_g or self.nonfinite == "base_step"

    @property
    def writes_h(self) -> bool:
        """Whether d is formed in h's buffers."""
        return self.max_norm is not None or not isinstance(self.combine, AtAscentPoint)

    @property
    def needs_true_scale(self) -> bool:
        """Whether a loss scale must leave g before the ascent (else it leaves with the norm)."""
        return (
            not self.ball.scale_free
            or not isinstance(self.source, Gradient)
            or self.keeps_g
            or self.combine.keeps
            or self.combine.reads_dual
            or self.when.looks_at_gradient
        )

    @property
    def keeps_vectors(self) -> bool:
        """Whether a parameter-sized vector lives between steps, which a NaN must not enter."""
        return bool(self.source.keeps) or self.combine.keeps


Mark: TypeAlias = "tuple[dict[str, float], dict[Tensor, dict[str, Tensor]]]"


@dataclass
class Memory:
    """What lives between steps.

    Attributes:
        count: steps taken (skipped ones that the host knows of do not count).
        scalars: numbers of the `when` rule.
        kept: vectors of the source and of the combine ("v"), by parameter and name.
    """

    count: int = 0
    scalars: dict[str, float] = field(default_factory=dict)
    kept: dict[Tensor, dict[str, Tensor]] = field(default_factory=dict)

    def mark(self) -> Mark:
        """What `rewind` needs if the step is given up: names of tensors, no copies (rules replace, never overwrite)."""
        return dict(self.scalars), {p: dict(vectors) for p, vectors in self.kept.items()}

    def rewind(self, mark: Mark) -> None:
        """As at the mark."""
        self.scalars, self.kept = mark


@dataclass
class Setting:
    """One step's surroundings.

    Attributes:
        choices: the five choices and options.
        base: the wrapped optimizer.
        memory: what lives between steps.
        radii: rho of each group at this step.
        census: names of parameters, where a rule asks.
        scaler: an active GradScaler, or None.
        roster: what was found out about the parameters at earlier steps.
    """

    choices: Choices
    base: torch.optim.Optimizer
    memory: Memory
    radii: list[float]
    census: Census | None = None
    scaler: Any = None
    roster: Roster = field(default_factory=Roster)

    def journey(self) -> Journey:
        """A way to w + e and back."""
        return Journey(self.choices.travel, self.roster)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The base's groups."""
        return self.base.param_groups

    @property
    def sampled(self) -> bool:
        """Whether this step measures cosine and realised radius."""
        every = self.choices.record_every
        if every is None:  # what cannot hold e is looked at once, unasked
            return self.memory.count == 0 and self.has_low_precision
        return self.memory.count % every == 0

    @property
    def has_low_precision(self) -> bool:
        """Whether a parameter has 16 bits."""
        return any(p.dtype in LOW for group in self.groups for p in group["params"])

    def moving(self, params: Sequence[Tensor], groups: Sequence[int]) -> list[int]:
        """Positions of the parameters that the ascent moves."""
        selects = self.choices.ball.selects and self.census is not None
        if not selects and all(self.radii):
            return list(range(len(params)))
        return [
            i
            for i, (p, k) in enumerate(zip(params, groups, strict=True))
            if self.radii[k] > 0 and (not selects or self._covers(p))
        ]

    def _covers(self, p: Tensor) -> bool:
        census = self.census
        return census is None or self.choices.ball.covers(census.name(p), p, census.owner(p))

    def at(self, params: Sequence[Tensor], V: Lists, fresh: Sequence[bool] | None = None) -> At:
        """The context that rules get for these parameters."""
        rho = max(self.radii, default=0.0)
        if self.census is None:
            return At(V, self.memory.count, rho, params, fresh=fresh)
        names = [self.census.name(p) for p in params]
        return At(V, self.memory.count, rho, params, names, [self.census.owner(p) for p in params], fresh)
