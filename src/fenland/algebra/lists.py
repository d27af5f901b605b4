"""One model: vectors are lists of tensors, scalars are 0-d tensors on the first tensor's device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor

from fenland.algebra.base import Algebra, Scalar, Vector, accumulator_dtype
from fenland.algebra.fresh import fresh_like
from fenland.algebra.shards import Layout, complete


class Lists(Algebra):
    """Arithmetic over the parameters of one model, sharded ones included.

    Tensors are the *local* ones. `layouts` says how each is sharded (`None`: none is), position by position, so every
    vector that one object works on has the same number of tensors. `joins` is what `Joins.of` says of them, if known.
    """

    def __init__(self, layouts: list[Layout] | None = None, joins: Joins | None = None) -> None:
        self.layouts, self.joins = layouts, joins

    def only(self, keep: Sequence[int]) -> Lists:
        return Lists(None if self.layouts is None else [self.layouts[i] for i in keep])

    def joined(self, params: Sequence[Tensor], leaves: Sequence[Any]) -> Lists:
        known = {p: kind for x in leaves if x.V.layouts for p, kind in zip(x.params, x.V.layouts, strict=True)}
        return Lists([known.get(p) for p in params] if known else None)

    def norm(self, xs: Vector) -> Scalar:
        known = self.joins is not None and self.joins.count == len(xs)
        joins = self.joins if known else self._joins_of(xs)
        parts: list[Scalar] = []
        if joins is not None:
            large = joins.large(xs)
            parts += torch._foreach_norm(large) if large else ()
            parts += [] if joins.small is None else [_length(_flatten(joins.small(xs)))]
        if set(map(_dtype, parts)) in _FULL:  # else the tensors are of other dtypes, whose sums need a wider one
            whole = _length(torch.stack(parts)) if len(parts) > 1 else parts[0]
        else:
            whole = self.whole_norm(self.per_tensor_norms(xs))
        if Algebra.looks and whole.is_cpu and whole.dtype != torch.float64 and not 1e-18 < whole.item() < 1e18:
            # Squares left float32's range (or it is a true 0, inf or NaN): once more in float64.
            wide = [torch.linalg.vector_norm(x, dtype=_wide(x)) for x in xs]
            whole = self.whole_norm(wide).to(whole.dtype)
        return whole

    def _joins_of(self, xs: Vector) -> Joins | None:
        if self.joins is not None and self.joins.count == len(xs):
            return self.joins
        return Joins.of(xs) if self.layouts is None else None

    def whole_norm(self, parts: list[Scalar]) -> Scalar:
        """||x||_2 from the norms of x's tensors."""
        if not parts:
            return torch.zeros(())
        if self.layouts is not None:
            return complete([n * n for n in parts], self.layouts, "sum").sqrt()
        whole: Scalar = torch.linalg.vector_norm(_stack(parts))
        return whole

    def per_tensor_norms(self, xs: Vector) -> list[Scalar]:
        if not xs:
            return []
        dtype = accumulator_dtype(xs)
        if any(x.is_complex() for x in xs):
            xs = [as_real(x) for x in xs]
        plain = all(x.dtype == dtype for x in xs)
        norms = torch._foreach_norm(xs, 2) if plain else torch._foreach_norm(xs, 2, dtype=dtype)
        return list(norms)

    def dot(self, xs: Vector, ys: Vector) -> Scalar:
        dtype = accumulator_dtype(xs)
        joins = self._joins_of(xs)
        if joins is None or joins.small is None or {x.dtype for x in ys} != {xs[0].dtype}:
            return self._sum([_dot(x, y, dtype) for x, y in zip(xs, ys, strict=True)])
        joined = torch.dot(_flatten(joins.small(xs)), _flatten(joins.small(ys)))
        pairs = zip(joins.large(xs), joins.large(ys), strict=True)
        return self._sum([joined, *(_dot(x, y, dtype) for x, y in pairs)])

    def absmax(self, xs: Vector) -> Scalar:
        dtype = accumulator_dtype(xs)
        parts = [x.abs().amax().to(dtype) if x.numel() else torch.zeros((), dtype=dtype, device=x.device) for x in xs]
        if self.layouts is not None:
            return complete(parts, self.layouts, "max")
        return _stack(parts).amax() if parts else torch.zeros(())

    def total(self, xs: Vector) -> Scalar:
        dtype = accumulator_dtype(xs)
        return self._sum([x.sum(dtype=dtype) for x in xs])

    def _sum(self, parts: list[Tensor]) -> Scalar:
        if self.layouts is not None:
            return complete(parts, self.layouts, "sum")
        return _stack(parts).sum() if parts else torch.zeros(())

    def scale(self, s: Any, xs: Vector) -> Vector:
        if isinstance(s, list):  # one factor a tensor, where groups have radii of their own
            return [x * k for x, k in zip(xs, s, strict=True)]
        return list(torch._foreach_mul(xs, s)) if xs else []

    def scale_(self, s: Scalar, xs: Vector) -> None:
        scale_(s, xs)

    def mix(self, coefficients: Sequence[Any], vectors: Sequence[Vector]) -> Vector:
        out: Vector = []
        for c, xs in zip(coefficients, vectors, strict=True):
            if not out:
                out = self.scale(c, xs)
            elif isinstance(c, float):
                torch._foreach_add_(out, xs, alpha=c)
            else:
                each = c if isinstance(c, list) else [c] * len(xs)
                for y, x, k in zip(out, xs, each, strict=True):
                    y.addcmul_(x, k) if isinstance(k, Tensor) else y.add_(x, alpha=k)
        return out

    def metric_step(
        self, root: Callable[..., Tensor], a: Vector, *others: Vector, spend: bool = False
    ) -> tuple[Vector, Scalar]:
        if a and a[0].is_cpu and max(map(Tensor.numel, a)) > PIECE:
            out = a if spend else [torch.empty_like(x, memory_format=torch.contiguous_format) for x in a]
            parts = [_in_pieces(root, *xs) for xs in zip(out, a, *others, strict=True)]
            return out, self.whole_norm(parts)
        if not spend or not a:
            return super().metric_step(root, a, *others)
        roots = [root(*xs) for xs in zip(a, *others, strict=True)]
        torch._foreach_mul_(a, roots)
        length = self.norm(a)
        torch._foreach_mul_(a, roots)
        return a, length


class Joins:
    """Which tensors of a vector on a CPU are small: a call for each costs more than they do, so they are joined.

    Attributes:
        count: tensors of the vector.
        small: picks those that are joined; None where they are too few.
        large: picks the others.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.count = len(sizes)
        small = [i for i, n in enumerate(sizes) if n <= JOINED]
        self.small: Callable[[Vector], Any] | None = itemgetter(*small) if len(small) >= FEW else None
        self.large: Callable[[Vector], Any] = (
            list if self.small is None else _picking(sorted({*range(self.count)} - {*small}))
        )

    @staticmethod
    def of(xs: Sequence[Tensor]) -> Joins | None:
        """Those of vectors like this one; None where it lies elsewhere, or its sums need a wider dtype than its own."""
        joinable = set(map(_is_cpu, xs)) == _YES and set(map(_dtype, xs)) in _FULL
        return _joins(tuple(map(Tensor.numel, xs))) if joinable else None


_joins = lru_cache(maxsize=16)(Joins)


def _picking(at: Sequence[int]) -> Callable[[Vector], Any]:
    """`itemgetter` of these positions, which returns a sequence for one and for none, too."""
    return itemgetter(*at) if len(at) > 1 else itemgetter(slice(at[0], at[0] + 1) if at else slice(0))


def _in_pieces(root: Callable[..., Tensor], out: Tensor, a: Tensor, *others: Tensor) -> Scalar:
    """||R a|| of one tensor, and R^2 a into `out`, which may be a; what is between never leaves the cache."""
    if not all(x.is_contiguous() for x in (out, a, *others)):
        r = root(a, *others)
        scaled = r * a
        out.copy_(r * scaled)
        whole: Scalar = torch.linalg.vector_norm(scaled, dtype=accumulator_dtype([a]))
        return whole
    into, *flat = (x.view(-1) for x in (out, a, *others))
    dtype, norms = accumulator_dtype([a]), []
    for begin in range(0, max(1, a.numel()), PIECE):
        to, x, *rest = (y[begin : begin + PIECE] for y in (into, *flat))
        r = root(x, *rest)
        torch.mul(r, x, out=to)
        norms.append(torch.linalg.vector_norm(to, dtype=dtype))
        to.mul_(r)
        del r  # before the next one is made: one such piece at a time
    return _length(torch.stack(norms))


PIECE = 1 << 17  # elements: half a megabyte each; with what a rule makes of them they fit into a core's cache
JOINED = 1 << 12  # elements of a tensor; above, its own reading takes longer than a call
FEW = 8
_FULL = ({torch.float32}, {torch.float64})
_YES = {True}
_is_cpu, _dtype, _device = attrgetter("is_cpu"), attrgetter("dtype"), attrgetter("device")
_flatten: Callable[[Vector], Tensor] = torch._C._nn.flatten_dense_tensors
_length: Callable[[Tensor], Scalar] = torch.linalg.vector_norm


def scale_(s: Scalar | float | list[Scalar], xs: Vector) -> None:
    """x <- s * x in place, s one scalar for all tensors (nothing to do for 1.0) or one a tensor."""
    if not xs or (not isinstance(s, (Tensor, list)) and s == 1.0):
        return
    if not isinstance(s, Tensor) or s.is_cpu or {x.device for x in xs} == {s.device}:
        torch._foreach_mul_(xs, s)  # a 0-d CPU scalar serves every device as it is
    else:
        for device in {x.device for x in xs}:
            torch._foreach_mul_([x for x in xs if x.device == device], s.to(device))


def combine_(alpha: Scalar | float, gs: Vector, beta: Scalar | float, hs: Vector, scratch: bool = True) -> None:
    """h <- alpha * g + beta * h in place; where alpha is a tensor and `scratch` allows it, g's are used up."""
    if not hs:
        return
    if isinstance(alpha, float) and isinstance(beta, float) and alpha + beta == 1.0:
        torch._foreach_lerp_(hs, gs, alpha)
        return
    if not (isinstance(beta, float) and beta == 1.0):
        if hs[0].is_cpu and max(map(Tensor.numel, hs)) > PIECE:
            for g, h in zip(gs, hs, strict=True):
                _combine_pieces(alpha, g, beta, h)
            return
        torch._foreach_mul_(hs, beta)
    if isinstance(alpha, float):
        torch._foreach_add_(hs, gs, alpha=alpha)
    elif scratch:
        torch._foreach_mul_(gs, alpha)
        torch._foreach_add_(hs, gs)
    else:
        torch._foreach_add_(hs, torch._foreach_mul(gs, alpha))


def _combine_pieces(alpha: Scalar | float, g: Tensor, beta: Scalar | float, h: Tensor) -> None:
    """The same for one tensor of a CPU, in pieces that stay in its cache: h and g are read once."""
    pieces = [(g, h)]
    if g.is_contiguous() and h.is_contiguous():
        pieces = list(zip(torch.split(g.view(-1), PIECE), torch.split(h.view(-1), PIECE), strict=True))
    for x, y in pieces:
        y.mul_(beta)
        y.add_(x, alpha=alpha) if isinstance(alpha, float) else y.addcmul_(x, alpha)


def _dot(x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    if x.is_complex():
        return torch.view_as_real(x).mul(torch.view_as_real(y)).sum(dtype=dtype)
    if x.dtype == dtype and x.is_contiguous() and y.is_contiguous():
        return torch.dot(x.view(-1), y.view(-1))
    return (x * y).sum(dtype=dtype) if x.dtype == dtype else (x.to(dtype) * y.to(dtype)).sum()


def _stack(parts: list[Tensor]) -> Tensor:
    """Partial results of several devices on the first one's."""
    device = parts[0].device
    return torch.stack([p if p.device == device else p.to(device) for p in parts])


def addcmul_into(
    ws: Vector, us: Vector, s: Scalar | list[Scalar], out: Vector, *, plain: bool | None = None, spend: bool = False
) -> None:
    """out <- w + s * u; `out` may be the list ws or the list us.

    `plain` is what `small_and_plain` says, where known; `spend` allows to use up us as scratch. The rounding depends on
    sizes and dtypes only, never on where the result goes. 16-bit tensors are added in float32: their own arithmetic
    would round s and the product first.
    """
    if small_and_plain(ws, us) if plain is None else plain:
        if out is us or spend:
            es = us
            scale_(s, es)
        else:
            es = _product(s, us)
        torch._foreach_add_(*((ws, es) if out is ws else (es, ws)))
        if out is not ws and es is not out:
            torch._foreach_copy_(out, es)
        return
    each = s if isinstance(s, list) else [s] * len(ws)
    for w, u, t, x in zip(ws, us, each, out, strict=True):
        t = t if t.device in (w.device, _CPU) else t.to(w.device)
        if w.dtype == u.dtype and w.dtype not in _HALF:
            torch.addcmul(w, u, t, out=x)
        else:
            x.copy_(torch.addcmul(w.to(t.dtype), u.to(t.dtype), t))


def addcmul(ws: Vector, us: Vector, s: Scalar | list[Scalar], *, plain: bool | None = None) -> Vector:
    """w + s * u in fresh memory, with the strides of w; rounded as `addcmul_into` does.

    `plain` is what `small_and_plain` says, where known, of tensors whose strides are known to be equal.
    """
    if plain is None:
        plain = small_and_plain(ws, us) and list(map(Tensor.stride, us)) == list(map(Tensor.stride, ws))
    if plain:
        es = _product(s, us)
        torch._foreach_add_(es, ws)
        return es
    out = fresh_like(ws)
    addcmul_into(ws, us, s, out)
    return out


def _product(s: Scalar | list[Scalar], us: Vector) -> Vector:
    """s * u, new tensors."""
    if isinstance(s, list) or s.is_cpu or set(map(_device, us)) == {s.device}:
        return list(torch._foreach_mul(us, s))
    return [u * s.to(u.device) for u in us]


_CPU = torch.device("cpu")
_HALF = (torch.bfloat16, torch.float16)
_SMALL = 1 << 18  # elements; up to there two foreach passes stay in cache and beat one call a tensor


def small_and_plain(ws: Sequence[Tensor], us: Sequence[Tensor]) -> bool:
    """Whether foreach passes serve: one dtype of at least 32 bits, and nothing large on a CPU."""
    dtype = ws[0].dtype
    if dtype in _HALF or {w.dtype for w in ws} | {u.dtype for u in us} != {dtype}:
        return False
    return ws[0].device.type != "cpu" or max(map(torch.Tensor.numel, ws)) <= _SMALL


def as_real(x: Tensor) -> Tensor:
    """A complex tensor as real and imaginary parts, a real one as it is."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _wide(x: Tensor) -> torch.dtype:
    return torch.complex128 if x.is_complex() else torch.float64
