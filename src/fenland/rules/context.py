"""What a rule may know and ask of the step in which it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fenland.algebra import Lazy, Leaf, Scalar, Vector
from fenland.rules.requests import Climb


@dataclass(eq=False)
class Context:
    """The step in which a rule is asked, called `s` in the rules. This one serves outside an optimizer.

    Attributes:
        count: number of the step, from 0.
        rho: the largest radius of the groups that move (unit of w).
        w: the weights, one tensor a parameter of the vector in question.
        param_names: the parameters' names, where they are known.
        owners: the modules that own them, likewise.
        spend: the memory of the vector that is climbed along may be overwritten.
    """

    count: int = 0
    rho: float = 0.0
    w: Vector | None = None
    param_names: Sequence[str] | None = None
    owners: Sequence[nn.Module | None] | None = None
    spend: bool = False

    # What balls and sources ask.

    def weights(self, a: Lazy) -> Vector:
        """w, one tensor of the shape of each of a's."""
        if self.w is None:
            raise ValueError("this rule reads the weights: Context(w=...)")
        return self.w

    def names(self, a: Lazy) -> Sequence[str]:
        """The names of a's parameters."""
        if self.param_names is None:
            raise ValueError("this rule reads the parameters' names: Context(param_names=...)")
        return self.param_names

    def modules(self, a: Lazy) -> Sequence[nn.Module | None]:
        """The modules that own a's parameters."""
        if self.owners is None:
            raise ValueError("this rule reads the layers that own parameters: Context(owners=...)")
        return self.owners

    # What methods ask.

    def due(self, g: Leaf | None = None) -> bool:
        """Whether this step ascends: `when` says so and some radius is not 0. g: the clean gradient, if known."""
        raise NotImplementedError

    climb = Climb  # (a, share=1.0): `share` of the steepest perturbation along a, of radius rho group by group

    def steepest(self, a: Lazy) -> Lazy:
        """The steepest perturbation along a, of radius 1."""
        raise NotImplementedError

    def reach(self, e: Lazy) -> Lazy:
        """rho * e, group by group."""
        raise NotImplementedError

    def get(self, name: str, default: Any = None) -> Any:
        """What was put under this name: a number, or a vector, with `default` for parameters that have none."""
        raise NotImplementedError

    def put(self, name: str, value: Any) -> Any:
        """Keep a number or a vector between steps, once the base has stepped; returns the vector in its own memory."""
        raise NotImplementedError

    def fresh(self, name: str, g: Leaf) -> list[bool]:
        """For each of g's parameters, whether nothing was kept under this name before this step."""
        raise NotImplementedError

    def base(self, *names: str) -> Leaf | None:
        """The base's own vector under the first of these names that it has; None before its first step."""
        raise NotImplementedError

    def parameters(self) -> Sequence[Tensor]:
        """The tensors that a vector has one of each of: the weights that require a gradient."""
        raise NotImplementedError

    def vector(self, tensors: Vector) -> Leaf:
        """A vector over `parameters()`."""
        raise NotImplementedError

    def norm_of(self, full: Any) -> Scalar | float:
        """The value of a callable that a rule was given (the norm of the full-data gradient)."""
        value: Scalar | float = full()
        return value
