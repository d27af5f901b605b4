"""All points of the contract over one rule, and what came of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fenland.optimizer import SharpnessAware
from fenland.rules import Ball, Combine, Method, Source, When
from fenland.testing.points import POINTS
from fenland.testing.trial import Case, DoesNotApply

_KINDS = {"ball": Ball, "source": Source, "combine": Combine, "when": When, "method": Method}
_BY_NAME = {point.__name__: point for point in POINTS}


@dataclass(frozen=True)
class Point:
    """What came of one point of the contract.

    Attributes:
        name: of the point, as in `POINTS`.
        sentence: what it says.
        state: "holds", "broken", or "does not apply".
        why: what was found, or why it does not apply; empty where it holds.
    """

    name: str
    sentence: str
    state: Literal["holds", "broken", "does not apply"]
    why: str = ""


@dataclass(frozen=True)
class Report:
    """All points of the contract over one rule; printed, one line a point.

    Attributes:
        rule: what was examined.
        points: what came of each.
    """

    rule: str
    points: tuple[Point, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the points that do not hold."""
        return tuple(point.name for point in self.points if point.state == "broken")

    def __str__(self) -> str:
        lines = [f"The step contract over {self.rule}: {len(self.broken)} of {len(self.points)} points broken"]
        for point in self.points:
            mark = "BROKEN" if point.state == "broken" else point.state
            lines.append(f"  {mark:15} {point.name:15} {point.sentence}")
            lines += [f"  {'':31} {line}" for line in point.why.splitlines()]
        return "\n".join(lines)


def examine(rule: Any, *, rho: float = 0.1, skip: Collection[str] = (), **options: Any) -> Report:
    """Run the whole step contract over a rule of your own and report which points hold.

    Args:
        rule: a ball, source, combine, when or method (an instance), or a function (base, rho=, **options) -> optimizer,
            such as `fenland.SSAM`.
        rho: the radius (unit of w for normalised balls).
        skip: names of points to leave out, as in `POINTS`.
        options: of `SharpnessAware` beside it, such as when=fenland.EveryK(2).

    Returns:
        A report; `print(report)` shows each point, `report.broken` names those that do not hold.

    Raises:
        TypeError: `rule` is neither a rule nor a function, or a class instead of an instance.
        ValueError: `skip` names a point that there is not; the optimizer refuses these options.
    """
    unknown = sorted(set(skip) - set(_BY_NAME))
    if unknown:
        raise ValueError(f"skip = {unknown}: must be among {', '.join(_BY_NAME)}")
    case = Case(_builder(rule), rho, options)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.trial()  # what the optimizer refuses is no broken point
        points = tuple(_found(point, case) for name, point in _BY_NAME.items() if name not in skip)
    return Report(getattr(rule, "__name__", None) or repr(rule), points)


def check(rule: Any, *, rho: float = 0.1, skip: Collection[str] = (), **options: Any) -> Report:
    """Run `examine`, and raise an AssertionError with the report if a point does not hold: one line in your tests.

    Raises:
        AssertionError: a point does not hold; the message is the report.
        TypeError, ValueError: as for `examine`.
    """
    report = examine(rule, rho=rho, skip=skip, **options)
    if report.broken:
        raise AssertionError(str(report))
    return report


def _builder(rule: Any) -> Callable[..., Any]:
    for name, kind in _KINDS.items():
        if isinstance(rule, type) and issubclass(rule, kind):
            raise TypeError(f"rule = {rule.__name__}: pass an instance, {rule.__name__}(...), not the class")
        if isinstance(rule, kind):
            return lambda base, **options: SharpnessAware(base, **{name: rule, **options})
    if not callable(rule):
        raise TypeError(f"rule = {rule!r}: must be a ball, source, combine, when or method, or a function of a base")
    built: Callable[..., Any] = rule
    return built


def _found(point: Callable[[Case], None], case: Case) -> Point:
    sentence = (point.__doc__ or "").partition("\n")[0]
    try:
        point(case)
    except DoesNotApply as reason:
        return Point(point.__name__, sentence, "does not apply", str(reason))
    except Exception as error:  # whatever a rule raises breaks the point, and the others are still asked
        told = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        return Point(point.__name__, sentence, "broken", told)
    return Point(point.__name__, sentence, "holds")
