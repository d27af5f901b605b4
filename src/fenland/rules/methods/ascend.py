"""The usual step: the gradient at w, an ascent along a vector made of it, the gradient there."""

from __future__ import annotations

from dataclasses import dataclass

from fenland.arguments import check_instance
from fenland.rules.combine import AtAscentPoint, Combine
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.parameters import ParameterNames
from fenland.rules.requests import Grad, Program, Update
from fenland.rules.source import Gradient, Source


@dataclass(frozen=True)
class Ascend(Method):
    r"""g = grad L(w), h = grad L(w + e) with e along source(g), d = combine(g, h); d = g on steps without an ascent.

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412; four fifths of its relatives are this with another
    ball, source, combine or when.
    """

    source: Source = Gradient()  # noqa: RUF009 - rules are frozen
    combine: Combine = AtAscentPoint()  # noqa: RUF009

    def __post_init__(self) -> None:
        check_instance("source", self.source, Source, "fenland.Gradient()")
        check_instance("combine", self.combine, Combine, "fenland.AtAscentPoint()")

    @property
    def keeps(self) -> tuple[str, ...]:
        return self.source.keeps

    @property
    def reads_norms(self) -> bool:
        return bool(self.combine.reads)

    def check(self, params: ParameterNames) -> None:
        self.source.check(params)

    def step(self, s: Context) -> Program:
        g = yield Grad()
        if not s.due(g):
            yield Update(g)
            return
        keep = g if self.combine.keeps_g else None
        h = yield Grad(at=s.climb(self.source.vector(g, s)), keep=keep, final=not self.combine.reads)
        yield Update(self.combine(g, h))


def chosen(method: Method | None, source: Source | None, combine: Combine | None) -> Method:
    """The method, or the usual ascent with this source and combine."""
    for name, value, kind, example in (
        ("source", source, Source, "fenland.Gradient()"),
        ("combine", combine, Combine, "fenland.AtAscentPoint()"),
        ("method", method, Method, "fenland.Ascend()"),
    ):
        if isinstance(value, Method) and kind is not Method:
            raise TypeError(f"{name} = {value!r}: it is a whole method; pass it as method=")
        if value is not None:
            check_instance(name, value, kind, example)
    if method is None:
        return Ascend(source or Gradient(), combine or AtAscentPoint())
    if source is not None or combine is not None:
        given = "source" if source is not None else "combine"
        raise ValueError(f"method = {method!r} and {given} = ...: a method has its own; pass {given} to the method")
    return method
