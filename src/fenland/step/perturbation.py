"""w -> w + e -> w, bit for bit: the only file that moves weights.

Two strategies, chosen parameter by parameter:

- *swap*: w + e is written into other memory (the gradient's own, where nobody else needs it) and the parameter points
  at it; undoing is pointing again at the untouched w. No copy, no restore pass.
- *inplace*: w is saved, the parameter is changed in place, and undoing copies w. For parameters whose storage others
  see: DTensors, tied or viewed or shared memory, a module's flat weights. With perturb="offload" the saved w waits in
  the host's memory, for models that leave no room for it on the device.

Who else sees a tensor's storage is asked of every weight and gradient at every step, so in one C loop a question.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn.utils import parametrize

from fenland.algebra import Lists, Scalar, Vector
from fenland.algebra.fresh import clones
from fenland.algebra.lists import Joins, addcmul, addcmul_into, small_and_plain
from fenland.algebra.shards import PLAIN, any_dtensor, is_dtensor, local

STRATEGIES = ("auto", "swap", "inplace", "offload")  # "auto" swaps wherever it may: faster at every size (benchmarks/)


OWNED, BUCKET_VIEW, ALIASED = 0, 1, 2  # nobody else's; part of a larger buffer (DDP's); kept by somebody

_storage_users = torch._C._storage_Use_Count
_storage_of = torch.Tensor.untyped_storage
_storage_bytes = torch.UntypedStorage.nbytes
_data, _dtype, _nbytes, _requires_grad = map(attrgetter, ("data", "dtype", "nbytes", "requires_grad"))
_cdata = attrgetter("_cdata")


class Perturbation:
    """Some parameters' way to w + e and back. It records before it moves, so `undo` is right at any moment."""

    def __init__(self, strategy: str, cache: StorageCache) -> None:
        self.strategy, self._cache = strategy, cache
        self._swapped: list[tuple[Tensor, Tensor]] = []  # parameter, its own w
        self._changed: list[tuple[Tensor, Tensor, Tensor]] = []  # parameter, local tensor changed in place, saved w
        self.params: list[Tensor] = []

    def apply(
        self,
        params: Sequence[Tensor],
        direction: Vector,
        steps: Scalar | list[Scalar],
        owned: Sequence[bool],
        whole: bool = False,
    ) -> None:
        """Bring the parameters from w to w + step * direction.

        Args:
            params: what moves, DTensors included.
            direction: local tensors of the parameters' shapes.
            steps: one scalar for all or one a parameter.
            owned: whether `direction`'s memory may be overwritten, one flag a parameter.
            whole: they are gradients, and those that may be overwritten are known to have a storage to themselves.

        Raises:
            ValueError: perturb="swap" and a parameter's storage must not be exchanged.
        """
        self.params = list(params)
        swapping = self.strategy not in ("inplace", "offload")
        movable = swapping and self._cache.all_movable(params)  # asked before anybody makes a view of the weights
        swaps = [True] * len(params) if movable else [swapping and self._may_swap(p) for p in params]
        torch.clear_autocast_cache()  # casts of w must not serve at w + e
        if parametrize._cache:  # nor what `parametrize.cached()` holds
            parametrize._cache.clear()
        if movable and self._cache.all_alike(direction, whole):  # as nearly always
            mine = False not in owned and self._cache.all_free(direction, whole)
            if mine or True not in owned:
                self._go((True, mine), self.params, direction, steps, plain=self._cache.plain)
                return
        each = zip(swaps, owned, direction, params, strict=True)
        flags = [(swap, mine and (not swap or _fits(u, p))) for swap, mine, u, p in each]
        for kind in sorted(set(flags)):
            chosen = [i for i, flag in enumerate(flags) if flag == kind]
            part = steps if isinstance(steps, Tensor) else [steps[i] for i in chosen]
            self._go(kind, [params[i] for i in chosen], [direction[i] for i in chosen], part)

    def arrive(self, params: Sequence[Tensor], there: Vector) -> None:
        """Bring the parameters to a point that was formed elsewhere (a retraction)."""
        ws = [local(p.detach()) for p in params]
        e = [x - w for x, w in zip(there, ws, strict=True)]
        del ws  # a view of the weights: nobody else may be seen to hold them
        one = torch.ones((), device=there[0].device, dtype=there[0].dtype)
        self.apply(params, e, one, [True] * len(there))

    def origins(self) -> Vector:
        """The weights w of the parameters that are away, in the order of `params`."""
        home = {id(p): w for p, w in self._swapped} | {id(p): w for p, _, w in self._changed}
        return [home[id(p)] for p in self.params]

    def undo(self) -> None:
        """Bring every parameter back to exactly w; nothing happens where none is away."""
        if not self.params:
            return
        for p, w in self._swapped:
            p.data = w
        if self._changed and self.strategy == "offload":
            for _, x, w in self._changed:
                x.copy_(w, non_blocking=True)  # in the order of the stream: what comes next sees w
        elif self._changed:
            torch._foreach_copy_([x for _, x, _ in self._changed], [w for _, _, w in self._changed])
        increment_version(self.params)  # a graph of pass 2 that is kept must not be used silently
        torch.clear_autocast_cache()  # casts of w + e must not serve at w
        if parametrize._cache:
            parametrize._cache.clear()
        self._swapped, self._changed, self.params = [], [], []

    def _may_swap(self, p: Tensor) -> bool:
        why = why_not_movable(p)
        if why is not None and self.strategy == "swap":
            self.params = []
            raise ValueError(
                f'perturb = "swap": a parameter of shape {tuple(p.shape)} {why}, so its storage cannot be exchanged; '
                'use perturb="auto", which changes such parameters in place'
            )
        return why is None

    def _go(
        self,
        kind: tuple[bool, bool],
        params: list[Tensor],
        us: Vector,
        s: Scalar | list[Scalar],
        plain: bool | None = None,
    ) -> None:
        swaps, overwrites = kind
        if not swaps:
            ws = [local(p) for p in params]
            saved = list(map(_on_host, ws)) if self.strategy == "offload" else clones(ws)
            self._changed += list(zip(params, ws, saved, strict=True))
            addcmul_into(ws, us, s, out=ws, spend=overwrites)
            increment_version(params)
            return
        ws = list(map(_data, params))
        if overwrites:
            there = us
            addcmul_into(ws, us, s, out=us, plain=plain)
        else:
            there = addcmul(ws, us, s, plain=plain)
        self._swapped += list(zip(params, ws, strict=True))
        for p, x in zip(params, there, strict=True):
            p.data = x
        increment_version(params)  # a graph of pass 1 that is kept must not be used silently


def _on_host(w: Tensor) -> Tensor:
    """A copy of w in the host's memory, pinned where w is on a CUDA device, so that nothing waits for it."""
    if w.device.type != "cuda":
        return w.detach().clone() if w.is_cpu else w.detach().cpu()
    return torch.empty_like(w, device="cpu", pin_memory=True).copy_(w, non_blocking=True)


def _fits(u: Tensor, p: Tensor) -> bool:
    """Whether a parameter like p can live in u's memory."""
    return (
        u.dtype == p.dtype
        and u.stride() == p.stride()
        and not u.requires_grad
        and u.untyped_storage().nbytes() == p.nbytes
        and u.device == p.device
    )


class StorageCache:
    """What holds of a list of parameters as long as none of their addresses changes; asked anew where one does.

    Who else uses a storage may change at any time and is asked at every step.

    Attributes:
        known: identities and addresses of the parameters.
        plain: what `small_and_plain` says of them.
        V: the algebra of their gradients.
    """

    def __init__(self) -> None:
        self.known: tuple[list[int], list[int]] = [], []
        self.V = Lists()
        self._looked: Sequence[Tensor] | None = None  # the list that was looked at last
        self._bytes: list[int] = []
        self._strides: list[tuple[int, ...]] = []
        self._dtypes: set[torch.dtype] = set()
        self._alone = self._simple = self.plain = False

    def look(self, params: Sequence[Tensor]) -> Lists:
        """Ask whether these parameters, which are at w, are those known; returns the algebra of their gradients."""
        self._looked = params
        known: tuple[list[int], list[int]] = [], []
        if PLAIN.issuperset(map(type, params)) or not any_dtensor(params):
            known = list(map(id, params)), list(map(torch.Tensor.data_ptr, params))
        if known != self.known:
            self._learn(params if known[0] else (), known)
        return self.V

    def all_movable(self, params: Sequence[Tensor]) -> bool:
        """Whether nobody else sees the memory of any of these parameters: one answer for the usual case."""
        if params is not self._looked:
            self.look(params)
        self._looked = None
        if not self._alone:
            return False
        storages = list(map(_storage_of, params))  # as long as an address stands nothing but its users can change
        return _ALONE.issuperset(map(_storage_users, map(_cdata, storages)))

    def _learn(self, params: Sequence[Tensor], known: tuple[list[int], list[int]]) -> None:
        self.known = known
        self._bytes, self._strides = [p.nbytes for p in params], list(map(torch.Tensor.stride, params))
        self._simple = all(p.is_contiguous() and p.numel() and 1 not in p.shape for p in params)
        self._dtypes = {p.dtype for p in params}
        self._alone = bool(params) and all(why_not_movable(p) is None for p in params)
        self.plain = self._alone and small_and_plain(params, params)
        self.V = Lists(joins=Joins.of(params))

    def all_alike(self, us: Sequence[Tensor], gradients: bool) -> bool:
        """Whether all have one dtype, and each of these tensors the strides of its parameter, of those last asked.

        A gradient has its parameter's shape, so that being contiguous says enough where no dimension is 1.
        """
        if self._simple and gradients:
            same = False not in map(torch.Tensor.is_contiguous, us)
        else:
            same = list(map(torch.Tensor.stride, us)) == self._strides
        return same and len(self._dtypes.union(map(_dtype, us))) == 1

    def all_free(self, us: Sequence[Tensor], whole: bool) -> bool:
        """Whether parameters may live in these tensors' buffers; `whole`: each is known to have a storage to itself."""
        return (whole or _all_alone(us, self._bytes)) and True not in map(_requires_grad, us)


def _all_alone(tensors: Sequence[Tensor], sizes: list[int]) -> bool:
    """Whether every one of these plain tensors has a storage of that size to itself."""
    storages = list(map(_storage_of, tensors))
    return list(map(_storage_bytes, storages)) == sizes and _ALONE.issuperset(
        map(_storage_users, map(_cdata, storages))
    )


def why_not_movable(p: Tensor) -> str | None:
    """The reason why p's storage must not be exchanged; None where nobody else sees it."""
    if is_dtensor(p):
        return "is a DTensor"  # `p.data =` would leave its shard as it was, and say nothing
    storage = p.untyped_storage()
    if _storage_users(storage._cdata) > _ALONE_STORAGE:
        return "shares its storage with another tensor"
    if storage.nbytes() != p.nbytes or p._is_view():
        return "is a view of a larger storage"
    return "is in shared memory" if p.device.type == "cpu" and p.untyped_storage().is_shared() else None


def holdings(grads: Sequence[Tensor], sharded: bool) -> list[int]:
    """Who else uses each gradient's buffer.

    Call it while each is in `p.grad`, with the list as the only other holder; `sharded`: some are DTensors.
    """
    references = list(map(sys.getrefcount, grads))
    if not sharded and max(references, default=0) <= _UNSEEN:
        storages = list(map(_storage_of, grads))
        whole = list(map(_storage_bytes, storages)) == list(map(_nbytes, grads))
        if whole and _ALONE.issuperset(map(_storage_users, map(_cdata, storages))):
            return [OWNED] * len(grads)
        del storages
    if min(references, default=0) > _UNSEEN:  # a closure that keeps them, keeps all of them
        return [ALIASED] * len(grads)
    return [ALIASED if n > _UNSEEN else _user(x, sharded) for n, x in zip(references, grads, strict=True)]


def _user(x: Tensor, sharded: bool) -> int:
    """Who else uses the buffer of a gradient that nobody else holds."""
    storage = (local(x) if sharded else x).untyped_storage()
    if storage.nbytes() != x.nbytes and not (sharded and is_dtensor(x)):
        return BUCKET_VIEW
    return ALIASED if _storage_users(storage._cdata) > _ALONE_STORAGE or x._is_view() else OWNED


def _calibrate() -> tuple[int, int]:
    """References and storage users of a gradient that only its parameter holds: they depend on Python's version."""
    p = torch.zeros(1, requires_grad=True)
    p.grad = torch.zeros(1)
    grads = [q.grad for q in [p]]
    (references,) = map(sys.getrefcount, grads)
    storage = grads[0].untyped_storage()  # type: ignore[union-attr]
    return references, _storage_users(storage._cdata)  # while it is held, as by those who ask: torch 2.6 counts it


_UNSEEN, _ALONE_STORAGE = _calibrate()
_ALONE = frozenset(range(_ALONE_STORAGE + 1))
