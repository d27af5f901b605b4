"""Vectors over all parameters, and linear combinations of them that are formed only where somebody needs the sum.

A rule writes d = alpha * g + beta * h as an equation. Until the engine writes it, in one pass, into memory that is
there already, it is two numbers and two leaves; its length and its products follow from those of the leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from operator import is_
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.algebra.base import Algebra, Scalar, Vector

Coefficient: TypeAlias = "Any"  # a float, a scalar of the algebra, or a list of these, one a tensor (radii by group)
_serials = count()
TINY = {torch.float64: 1e-290}  # smallest norm that is divided by; anything below counts as zero
TINY_LOW = 1e-30  # for float32 and below: 1 / 1e-30 still leaves room for a radius of 1e8


class Lazy:
    """sum_i c_i * x_i over leaves x_i, not formed.

    Attributes:
        terms: pairs (c_i, x_i); c_i is a float or a scalar of the algebra, each leaf occurs once.
        V: the algebra of the leaves.
        length: what a ball says of ||e|| / rho, where that is not 1 and e is no multiple of a; else None.
    """

    def __init__(self, terms: list[tuple[Coefficient, Leaf]], length: Scalar | None = None) -> None:
        self.terms = terms
        self.length = length
        self.V: Algebra = terms[0][1].V

    def __mul__(self, c: Coefficient) -> Lazy:
        return Lazy([(times(k, c), x) for k, x in self.terms])

    __rmul__ = __mul__

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Lazy:
        """Tensor * vector is the vector's product; torch.compile sends vector * tensor here too."""
        x, y = args
        return x.__mul__(y) if isinstance(x, Lazy) else y.__mul__(x)

    def __neg__(self) -> Lazy:
        return self * -1.0

    def __add__(self, other: Lazy) -> Lazy:
        terms = list(self.terms)
        for c, y in other.terms:
            for i, (k, x) in enumerate(terms):
                if x is y:
                    terms[i] = (k + c, x)
                    break
            else:
                terms.append((c, y))
        return Lazy(terms)

    def __sub__(self, other: Lazy) -> Lazy:
        return self + other * -1.0

    @property
    def norm(self) -> Scalar:
        """||x||_2, a scalar; no pass over the sum, only over leaves that were not measured before."""
        if len(self.terms) == 1:
            c, x = self.terms[0]
            whole: Scalar = times(abs(c), x.norm)
            return whole
        square: Any = 0.0
        for i, (c, x) in enumerate(self.terms):
            length = _wide(x.norm)  # squares of 1e20 leave float32's range
            square = square + (c * length) ** 2
            for k, y in self.terms[i + 1 :]:
                square = square + 2 * c * k * x.dot(y)
        root: Scalar = square.clamp_min(0).sqrt()
        return root.to(self.terms[0][1].norm.dtype)

    def dot(self, other: Lazy) -> Scalar:
        """<x, y>, a scalar."""
        found: Any = 0.0
        for c, x in self.terms:
            for k, y in other.terms:
                found = found + times(times(c, k), _leaf_dot(x, y))
        return found  # type: ignore[no-any-return]

    def form(self) -> Leaf:
        """The sum as a leaf of its own: new tensors, or the leaf itself where it is one with factor 1."""
        if len(self.terms) == 1 and is_number(self.terms[0][0], 1.0):
            return self.terms[0][1]
        params, lists, V = aligned([x for _, x in self.terms])
        coefficients = [c if x.factor is None else scaled(c, x.factor) for c, x in self.terms]
        return Leaf(V.mix(coefficients, lists), V, params, [True] * len(lists[0]))

    @property
    def tensors(self) -> Vector:
        """The sum, one tensor a parameter."""
        return self.form().tensors

    def only(self, keep: Sequence[int] | None) -> Lazy:
        """The part that the parameters at these positions have; all of it for None."""
        return self if keep is None else Lazy([(c, x.only(keep)) for c, x in self.terms])


class _Norm:
    """||x||_2 of a leaf: measured at the first look, an attribute of the leaf from then on.

    As `functools.cached_property`, without its lock, which torch.compile cannot trace.
    """

    def __get__(self, leaf: Any, owner: type) -> Any:
        if leaf is None:
            return self
        measured = leaf.V.norm(leaf.tensors if leaf.raw is None else leaf.raw)
        leaf.__dict__["norm"] = found = measured if leaf.factor is None else measured * leaf.factor
        return found


class Leaf(Lazy):
    """Tensors that exist, one a parameter: a gradient, or a vector that is kept between steps.

    Attributes:
        raw: the tensors as they stand; None once their memory was given to w + e.
        params: the parameters that they belong to; None for replicas.
        factor: what the tensors must still be multiplied with, 1 / loss scale; None for 1.
        owned: one flag a tensor, whether its memory may be written to; None: of none.
        losses: the losses (B,) of a pass of a method that chooses samples.
        dual: the ball's dual norm where the gradient was taken, if it was asked for.
    """

    def __init__(
        self,
        tensors: Vector,
        V: Algebra,
        params: Sequence[Tensor] | None = None,
        owned: list[bool] | None = None,
        factor: Scalar | None = None,
    ) -> None:
        self.raw: Vector | None = tensors
        self.V, self.params, self.owned, self.factor = V, params, owned, factor
        self._dots: dict[int, Scalar] = {}
        self.serial = 0 if V.batch_dims else next(_serials)  # replicas are traced, and a count cannot be
        self.length = None
        self.losses: Tensor | None = None
        self.dual: Scalar | None = None

    @property
    def terms(self) -> list[tuple[Coefficient, Leaf]]:  # type: ignore[override]
        return [(1.0, self)]  # made when asked for: kept, it would be a reference cycle around a whole gradient

    @property
    def tensors(self) -> Vector:
        """The tensors themselves, with a loss scale taken out.

        Raises:
            RuntimeError: their memory was given to w + e.
        """
        if self.raw is None:
            raise RuntimeError(
                "this gradient's memory holds w + e by now, only its norm is known: "
                "write keep=g in the request, as in Grad(at=s.climb(g), keep=g)"
            )
        if self.factor is not None:
            self.V.scale_(self.factor, self.raw)
            self.factor = None
        return self.raw

    norm: Any = _Norm()

    def __mul__(self, c: Coefficient) -> Lazy:
        return Lazy([(c, self)])

    __rmul__ = __mul__

    def like(self, tensors: Vector) -> Leaf:
        """Other tensors over the same parameters, new ones that may be written to."""
        return Leaf(tensors, self.V, self.params, [True] * len(tensors))

    def only(self, keep: Sequence[int] | None) -> Leaf:
        if keep is None or len(keep) == len(self.raw or ()):
            return self
        raw, params, owned = (
            None if xs is None else [xs[i] for i in keep] for xs in (self.raw, self.params, self.owned)
        )
        return Leaf(raw, self.V.only(keep), params, owned, self.factor)  # type: ignore[arg-type]


def _leaf_dot(x: Leaf, y: Leaf) -> Scalar:
    """<x, y> of two leaves, remembered by the younger one."""
    if x is y:
        return x.norm * x.norm  # type: ignore[no-any-return]
    if x.V.batch_dims:
        return x.V.dot(x.tensors, y.tensors)
    old, young = (x, y) if x.serial < y.serial else (y, x)
    known = young._dots.get(old.serial)
    if known is None:
        _, (xs, ys), V = aligned([old, young])
        if looked_at(old.norm) and not old.norm.item() * young.norm.item() < _LARGE:
            xs, ys = ([t.double() for t in ts] if not ts[0].is_complex() else ts for ts in (xs, ys))
        known = V.dot(xs, ys)
        for leaf in (old, young):
            if leaf.factor is not None:
                known = known * leaf.factor
        young._dots[old.serial] = known
    return known


_LARGE = 1e30  # a product of norms from which on <x, y> is added up in float64, where somebody may look


def _wide(s: Scalar) -> Scalar:
    return s.double() if looked_at(s) else s


def aligned(leaves: Sequence[Leaf]) -> tuple[Sequence[Tensor] | None, list[Vector], Algebra]:
    """(parameters, each leaf's tensors, their algebra) over what any of them has; what one lacks is zero there.

    Loss scales stay in the tensors: the coefficients that go with them carry `factor`.
    """
    first = leaves[0].params
    lists = [x.raw if x.raw is not None else x.tensors for x in leaves]
    if all(x.params is first or _same(x.params, first) for x in leaves):
        return first, lists, leaves[0].V
    have = [dict(zip(x.params or (), xs, strict=True)) for x, xs in zip(leaves, lists, strict=True)]
    models = {p: x for known in reversed(have) for p, x in known.items()}
    order = list({p: None for known in have for p in known})
    filled = [[known[p] if p in known else torch.zeros_like(models[p]) for p in order] for known in have]
    return order, filled, leaves[0].V.joined(order, leaves)


def _same(a: Sequence[Tensor] | None, b: Sequence[Tensor] | None) -> bool:
    return a is not None and b is not None and len(a) == len(b) and all(map(is_, a, b))


def times(a: Coefficient, b: Coefficient) -> Coefficient:
    """a * b, without a kernel for factors that are plainly 1."""
    if not isinstance(a, Tensor) and a == 1.0:
        return b
    return a if not isinstance(b, Tensor) and b == 1.0 else a * b


def scaled(c: Any, by: Scalar) -> Any:
    """c * by, c being one factor for all tensors or a list of one a tensor (groups have radii of their own)."""
    return [times(k, by) for k in c] if isinstance(c, list) else c * by


def is_number(c: Any, value: float) -> bool:
    """Whether c is a plain number equal to `value` (a tensor never is: nobody looks at it)."""
    return not isinstance(c, Tensor) and c == value


def project(x: Lazy, on: Lazy) -> Lazy:
    """<x, y> y / ||y||^2, the part of x along y (0 where y is); divided twice, so that squares do not underflow."""
    return on * (x.dot(on) * inverse(on.norm) * inverse(on.norm))


def looked_at(s: Scalar) -> bool:
    """Whether this scalar may be looked at: one number, at hand."""
    return Algebra.looks and s.dim() == 0 and s.is_cpu


def inverse(s: Scalar) -> Scalar:
    """1 / s, and 0 where s is too small to divide by: a vector of no length has no direction."""
    least = TINY.get(s.dtype, TINY_LOW)
    if Algebra.looks and s.is_cpu and s.dim() == 0:  # as `looked_at`; a call less
        return torch.zeros_like(s) if s.item() < least else s.reciprocal()
    return s.clamp_min(least).reciprocal() * (s >= least)


def ratio(numerator: Scalar, denominator: Scalar, look: bool = True) -> Scalar:
    """numerator / denominator, and 1 where the denominator is zero (or too small to divide by)."""
    least = TINY.get(denominator.dtype, TINY_LOW)
    if look and denominator.is_cpu and Algebra.looks and denominator.dim() == 0 and denominator.item() > least:
        return numerator / denominator
    return torch.where(denominator > least, numerator / denominator.clamp_min(least), torch.ones_like(denominator))
