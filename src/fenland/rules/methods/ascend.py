"""SAM: its answers to the four questions, and the usual step, in one ascent or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fenland.algebra import Lazy, Leaf, Scalar, inverse
from fenland.arguments import check_among, check_instance, check_number, check_whole
from fenland.rules.choices import Ball, Combine, Source, When
from fenland.rules.context import Context
from fenland.rules.methods.base import Method
from fenland.rules.parameters import ParameterNames
from fenland.rules.requests import Grad, Program, Update


@dataclass(frozen=True)
class L2(Ball):
    r"""e = rho * a / ||a||_2, one norm over all tensors of all groups with rho > 0.

    The ball of SAM. Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412, eq. (2) with p = 2.
    """

    def steepest(self, a: Lazy, s: Context) -> Lazy:
        return a * inverse(a.norm)

    def norm(self, e: Lazy, a: Lazy, s: Context) -> Scalar:
        return e.norm


@dataclass(frozen=True)
class Gradient(Source):
    """a = g, the mini-batch gradient at w. Source: Foret et al. 2021, arXiv 2010.01412."""

    def vector(self, g: Leaf, s: Context) -> Lazy:
        return g


@dataclass(frozen=True)
class AtAscentPoint(Combine):
    """d = h: SAM. Source: Foret et al. 2021, arXiv 2010.01412, eq. (3) (its second-order term dropped)."""

    reads: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, g: Leaf, h: Leaf) -> Lazy:
        return h


@dataclass(frozen=True)
class Always(When):
    """Every step ascends: two gradient evaluations a step."""

    def ascends(self, step: int, grad_norm: Scalar, memory: dict[str, float]) -> bool:
        return True


@dataclass(frozen=True)
class Ascend(Method):
    r"""g = grad L(w), h = grad L(w + e) with e along source(g), d = combine(g, h); d = g on steps without an ascent.

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412; four fifths of its relatives are this with another
    ball, source, combine or when.
    """

    source: Source = Gradient()
    combine: Combine = AtAscentPoint()

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
        keep = g if "g" in self.combine.reads else None
        h = yield Grad(at=s.climb(self.source.vector(g, s)), keep=keep, final=not self.combine.reads)
        yield Update(self.combine(g, h))


@dataclass(frozen=True)
class InnerSteps(Method):
    r"""e after n gradient steps, each of which starts from the last point; h is the gradient at the end. n + 1 passes.

    Three conventions are in use, with unit_k the steepest perturbation of radius 1 for the gradient at w + e_k:

        split:   e_{k+1} = e_k + (rho / n) * unit_k, so |e| <= rho (Foret et al. 2021, arXiv 2010.01412, appendix);
        project: e_{k+1} = e_k + step * rho * unit_k, cut back to |e| <= rho (the code of Andriushchenko and
                 Flammarion 2022, arXiv 2206.06232);
        full:    e_{k+1} = e_k + rho * unit_k, so |e| <= n * rho (optax's recipe, XSAM's code).

    The cut is Euclidean, with several radii in units of each. g is the gradient at w.

    Attributes:
        n: number of ascent steps.
        convention: see above.
        step_size: length of a step in radii, for "project" alone. 1.0: ours.
        combine: what the base gets from g and h.
    """

    n: int = 2
    convention: Literal["split", "project", "full"] = "split"
    step_size: float = 1.0
    combine: Combine = AtAscentPoint()

    def __post_init__(self) -> None:
        check_whole("n", self.n, 1)
        check_among("convention", self.convention, ("split", "project", "full"))
        check_number("step_size", self.step_size, low=0.0)
        check_instance("combine", self.combine, Combine, "fenland.AtAscentPoint()")
        if self.step_size != 1.0 and self.convention != "project":
            raise ValueError(
                f'step_size = {self.step_size!r} (step of NStepSAM): is a choice of convention="project" alone, and '
                f"with {self.convention!r} the steps have a length of their own; leave it out"
            )

    @property
    def evaluations(self) -> int:
        return self.n + 1

    @property
    def reads_norms(self) -> bool:
        return bool(self.combine.reads)

    def step(self, s: Context) -> Program:
        g = last = yield Grad()
        if not s.due(g):
            yield Update(g)
            return
        share = {"split": 1.0 / self.n, "project": self.step_size, "full": 1.0}[self.convention]
        e, kept = None, (g,) if "g" in self.combine.reads else ()
        for k in range(1, self.n + 1):
            unit = s.steepest(last) * share
            e = unit if e is None else (e + unit).form()
            if self.convention == "project":
                e = e * e.norm.clamp_min(1.0).reciprocal()
            final = k == self.n
            last = yield Grad(at=s.reach(e), keep=kept if final else (*kept, e), final=final and not self.combine.reads)
        yield Update(self.combine(g, last))


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
