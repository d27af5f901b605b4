"""Who else sees a tensor's storage: asked of every weight and gradient at every step, so in one C loop a question."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from fenland.algebra.lists import small_and_plain
from fenland.algebra.shards import any_dtensor, is_dtensor, local

OWNED, BUCKET_VIEW, ALIASED = 0, 1, 2  # nobody else's; part of a larger buffer (DDP's); kept by somebody

_storage_users = torch._C._storage_Use_Count
_storage_of = torch.Tensor.untyped_storage
_storage_bytes = torch.UntypedStorage.nbytes


class StorageCache:
    """What holds of a list of parameters as long as none of their addresses changes; asked anew where one does.

    It holds no tensor. Who else uses a storage may change at any time and is asked at every step.

    Attributes:
        plain: what `small_and_plain` says of them.
    """

    def __init__(self) -> None:
        self._known: tuple[list[int], list[int]] = [], []  # identities and addresses
        self._bytes: list[int] = []
        self._strides: list[tuple[int, ...]] = []
        self._dtypes: set[torch.dtype] = set()
        self._alone = self.plain = False

    def all_movable(self, params: Sequence[Tensor]) -> bool:
        """Whether nobody else sees the memory of any of these parameters: one answer for the usual case."""
        if any_dtensor(params):
            return False
        known = list(map(id, params)), list(map(torch.Tensor.data_ptr, params))
        if known != self._known:
            self._learn(params, known)
        return self._alone and _all_alone(params, self._bytes)

    def _learn(self, params: Sequence[Tensor], known: tuple[list[int], list[int]]) -> None:
        self._known = known
        self._bytes, self._strides = [p.nbytes for p in params], list(map(torch.Tensor.stride, params))
        self._dtypes = {p.dtype for p in params}
        self._alone = all(why_not_movable(p) is None for p in params)
        self.plain = self._alone and small_and_plain(params, params)

    def all_fit(self, us: Sequence[Tensor], whole: bool) -> bool:
        """Whether each of the parameters last asked about can live in the buffer of its u.

        Args:
            us: one tensor a parameter, to be overwritten.
            whole: each is known to have a storage to itself.
        """
        return (
            list(map(torch.Tensor.stride, us)) == self._strides
            and len({u.dtype for u in us} | self._dtypes) == 1
            and (whole or _all_alone(us, self._bytes))
            and True not in [u.requires_grad for u in us]
        )


def _all_alone(tensors: Sequence[Tensor], sizes: list[int]) -> bool:
    """Whether every one of these plain tensors has a storage of that size to itself."""
    storages = list(map(_storage_of, tensors))
    return list(map(_storage_bytes, storages)) == sizes and _ALONE.issuperset(
        map(_storage_users, [s._cdata for s in storages])
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


def holdings(grads: Sequence[Tensor]) -> list[int]:
    """Who else uses each gradient's buffer.

    Call it with the freshly made list as the only other holder.
    """
    unseen = _MAPPED.issuperset(map(sys.getrefcount, grads))
    if unseen and not any_dtensor(grads) and _all_alone(grads, [x.nbytes for x in grads]):
        return [OWNED] * len(grads)
    found = []
    references, users, alone, lonely = sys.getrefcount, _storage_users, _ALONE_REFERENCES, _ALONE_STORAGE
    sharded = any_dtensor(grads)
    for i in range(len(grads)):  # no loop variable: it would be one more holder
        if references(grads[i]) > alone:
            found.append(ALIASED)
            continue
        x = grads[i]
        storage = (local(x) if sharded else x).untyped_storage()
        if storage.nbytes() != x.nbytes and not (sharded and is_dtensor(x)):
            found.append(BUCKET_VIEW)
        else:
            found.append(ALIASED if users(storage._cdata) > lonely or x._is_view() else OWNED)
        del x
    return found


def _calibrate() -> tuple[int, int, int]:
    """References and storage users of a gradient that only its parameter holds: they depend on Python's version."""
    p = torch.zeros(1, requires_grad=True)
    p.grad = torch.zeros(1)
    grads = [q.grad for q in [p]]
    (mapped,) = map(sys.getrefcount, grads)
    storage = grads[0].untyped_storage()  # type: ignore[union-attr]
    return sys.getrefcount(grads[0]), mapped, _storage_users(storage._cdata)


_ALONE_REFERENCES, _mapped, _ALONE_STORAGE = _calibrate()
_MAPPED = frozenset(range(_mapped + 1))
_ALONE = frozenset(range(_ALONE_STORAGE + 1))
