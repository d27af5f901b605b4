"""To the ascent point w + e and back, bit for bit: the only file that moves weights.

Two strategies, chosen parameter by parameter:

- *move*: w + e is written into another buffer (the gradient's own, where nobody else needs it) and the parameter points
  at it; the way back is pointing again at the untouched w. No copy, no restore pass.
- *copy*: w is saved, the parameter is changed in place, and the way back copies w. For parameters whose storage others
  see: DTensors, tied or viewed or shared memory, a module's flat weights.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fenland.algebra import Scalar, Vector
from fenland.algebra.lists import addcmul_into
from fenland.algebra.shards import any_dtensor, is_dtensor, local

TRAVELS = ("auto", "move", "copy")  # "auto" moves wherever it may: measured faster at every size (benchmarks/)


class Journey:
    """One trip of some parameters to w + e and back. It records before it moves, so `back` is right at any moment."""

    def __init__(self, travel: str) -> None:
        self.travel = travel
        self._moved: list[tuple[Tensor, Tensor]] = []  # parameter, its own w
        self._copied: list[tuple[Tensor, Tensor, Tensor]] = []  # parameter, local tensor changed in place, saved w
        self._params: list[Tensor] = []
        self._moves: list[bool] = []

    def plan(self, params: Sequence[Tensor]) -> None:
        """Choose each parameter's strategy; call it before anybody makes a view of the weights.

        Raises:
            ValueError: travel="move" and a parameter's storage must not be exchanged.
        """
        self._params = list(params)
        if self.travel == "copy" or any_dtensor(params):
            self._moves = [self.travel != "copy" and self._may_move(p) for p in params]
        else:
            self._moves = [_why_not(p) is None or self._may_move(p) for p in params]

    def depart(self, direction: Vector, steps: Scalar | list[Scalar], owned: Sequence[bool]) -> None:
        """Bring every planned parameter from w to w + step * direction.

        Args:
            direction: local tensors of the parameters' shapes.
            steps: rho * scale, one scalar for all or one a parameter.
            owned: whether `direction`'s buffer may be overwritten, one flag a parameter.
        """
        params = self._params
        torch.clear_autocast_cache()
        flags = [(m, m and o and _fits(u, p)) for m, o, u, p in zip(self._moves, owned, direction, params, strict=True)]
        if flags and flags.count(flags[0]) == len(flags):  # all go alike, as nearly always
            self._go(flags[0], params, direction, steps)
            return
        for kind in sorted(set(flags)):
            chosen = [i for i, flag in enumerate(flags) if flag == kind]
            part = steps if isinstance(steps, Tensor) else [steps[i] for i in chosen]
            self._go(kind, [params[i] for i in chosen], [direction[i] for i in chosen], part)

    def _may_move(self, p: Tensor) -> bool:
        why = why_not_movable(p)
        if why is not None and self.travel == "move":
            raise ValueError(
                f'travel = "move": a parameter of shape {tuple(p.shape)} {why}, so its storage cannot be exchanged; '
                'use travel="auto", which changes such parameters in place'
            )
        return why is None

    def arrive(self, there: Vector) -> None:
        """Bring every planned parameter to a point that was formed elsewhere (a retraction)."""
        ws = [local(p.detach()) for p in self._params]
        e = [x - w for x, w in zip(there, ws, strict=True)]
        del ws
        self.depart(e, torch.ones((), device=there[0].device, dtype=there[0].dtype), [True] * len(there))

    def params(self) -> list[Tensor]:
        """The parameters of this journey."""
        return list(self._params)

    def origins(self) -> Vector:
        """The weights w of the parameters that are away, in the order of `depart`."""
        home = {id(p): w for p, w in self._moved} | {id(p): w for p, _, w in self._copied}
        return [home[id(p)] for p in self._params]

    def back(self) -> None:
        """Bring every parameter back to exactly w; nothing happens where none is away."""
        for p, w in self._moved:
            p.data = w
        if self._copied:
            torch._foreach_copy_([x for _, x, _ in self._copied], [w for _, _, w in self._copied])
        if self._params:
            increment_version(self._params)  # a graph of pass 2 that is kept must not be used silently
            torch.clear_autocast_cache()  # casts of w + e must not serve at w, nor those of w at w + e
        self._moved, self._copied, self._params, self._moves = [], [], [], []

    def _go(self, kind: tuple[bool, bool], params: list[Tensor], us: Vector, s: Scalar | list[Scalar]) -> None:
        moves, overwrites = kind
        if not moves:
            ws = [local(p) for p in params]
            saved = torch._foreach_clone(ws)
            self._copied += list(zip(params, ws, saved, strict=True))
            addcmul_into(ws, us, s, out=ws)
            increment_version(params)
            return
        ws = [p.data for p in params]
        there = us if overwrites else [torch.empty_like(w) for w in ws]
        addcmul_into(ws, us, s, out=there)
        self._moved += list(zip(params, ws, strict=True))
        for p, x in zip(params, there, strict=True):
            p.data = x
        increment_version(params)  # a graph of pass 1 that is kept must not be used silently


def why_not_movable(p: Tensor) -> str | None:
    """The reason why p's storage must not be exchanged; None where nobody else sees it."""
    if is_dtensor(p):
        return "is a DTensor"  # `p.data =` would leave its shard as it was, and say nothing
    return _why_not(p)


def _why_not(p: Tensor) -> str | None:
    """The same for a plain tensor."""
    storage = p.untyped_storage()
    if _storage_users(storage._cdata) > _ALONE_STORAGE:
        return "shares its storage with another tensor"
    if storage.nbytes() != p.nbytes or p._is_view():
        return "is a view of a larger storage"
    return "is in shared memory" if _is_shared(p) else None


def _is_shared(p: Tensor) -> bool:
    """Whether p lies in shared memory; asked anew only when its address changes, as `share_memory_` does."""
    address = p.data_ptr()
    known = _SHARED.get(id(p))
    if known is None or known[0] != address:
        known = _SHARED[id(p)] = address, p.device.type == "cpu" and bool(p.untyped_storage().is_shared())
        weakref.finalize(p, _SHARED.pop, id(p), None)
    return known[1]


_SHARED: dict[int, tuple[int, bool]] = {}
_storage_users = torch._C._storage_Use_Count

FREE, LENT, HELD = 0, 1, 2  # nobody else's; part of a larger buffer (DDP's buckets); kept by somebody


def holdings(grads: Sequence[Tensor]) -> list[int]:
    """Who else uses each gradient's buffer.

    Call it with the freshly made list as the only other holder.
    """
    found = []
    references, users, alone, lonely = sys.getrefcount, _storage_users, _ALONE_REFERENCES, _ALONE_STORAGE
    sharded = any_dtensor(grads)
    for i in range(len(grads)):  # no loop variable: it would be one more holder
        if references(grads[i]) > alone:
            found.append(HELD)
            continue
        x = grads[i]
        storage = (local(x) if sharded else x).untyped_storage()
        if storage.nbytes() != x.nbytes and not (sharded and is_dtensor(x)):
            found.append(LENT)
        else:
            found.append(HELD if users(storage._cdata) > lonely or x._is_view() else FREE)
        del x
    return found


def _fits(u: Tensor, p: Tensor) -> bool:
    """Whether a parameter like p can live in u's buffer."""
    return (
        u.dtype == p.dtype
        and u.stride() == p.stride()
        and not u.requires_grad
        and u.untyped_storage().nbytes() == p.nbytes
        and u.device == p.device
    )


def _calibrate() -> tuple[int, int]:
    """References and storage users of a gradient that only its parameter holds: they depend on Python's version."""
    p = torch.zeros(1, requires_grad=True)
    p.grad = torch.zeros(1)
    grads = [q.grad for q in [p]]
    storage = grads[0].untyped_storage()  # type: ignore[union-attr]
    return sys.getrefcount(grads[0]), torch._C._storage_Use_Count(storage._cdata)


_ALONE_REFERENCES, _ALONE_STORAGE = _calibrate()
