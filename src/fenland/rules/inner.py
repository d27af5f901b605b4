"""An ascent of several steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fenland.algebra import Vector
from fenland.arguments import check_among, check_number, check_whole
from fenland.rules.context import At
from fenland.rules.source import Source, State


@dataclass(frozen=True)
class InnerSteps(Source):
    r"""e after n gradient steps, each of which starts from the last point; d = the gradient at the end. n + 1 passes.

    Three conventions are in use, with unit_k the steepest perturbation of radius 1 for the gradient at w + e_k:

        split:   e_{k+1} = e_k + (rho / n) * unit_k, so |e| <= rho (Foret et al. 2021, arXiv 2010.01412, appendix);
        project: e_{k+1} = e_k + step * rho * unit_k, cut back to |e| <= rho (the code of Andriushchenko and
                 Flammarion 2022, arXiv 2206.06232);
        full:    e_{k+1} = e_k + rho * unit_k, so |e| <= n * rho (optax's recipe, XSAM's code).

    The cut is Euclidean, with several radii in units of each. g is the gradient at w.

    Attributes:
        n: number of ascent steps.
        convention: see above.
        step: length of a step in radii, for "project". 1.0: ours.
    """

    n: int = 2
    convention: Literal["split", "project", "full"] = "split"
    step: float = 1.0

    def __post_init__(self) -> None:
        check_whole("n", self.n, 1)
        check_among("convention", self.convention, ("split", "project", "full"))
        check_number("step", self.step, low=0.0)

    @property
    def inner(self) -> int:
        return self.n

    @property
    def share(self) -> float:
        if self.convention == "project":
            return min(self.step, 1.0)
        return 1.0 / self.n if self.convention == "split" else 1.0

    def vector(self, g: Vector, state: State, at: At) -> Vector:
        return g

    def advance(self, e: Vector, unit: Vector, at: At) -> Vector:
        if self.convention != "project":
            return at.V.axpy(self.share, unit, e)
        far = at.V.axpy(self.step, unit, e)
        return at.V.scale(at.V.norm(far).clamp_min(1.0).reciprocal(), far)
