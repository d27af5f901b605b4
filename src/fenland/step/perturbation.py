"""w -> w + e -> w, bit for bit: the only file that moves weights.

Two strategies, chosen parameter by parameter:

- *swap*: w + e is written into other memory (the gradient's own, where nobody else needs it) and the parameter points
  at it; undoing is pointing again at the untouched w. No copy, no restore pass.
- *inplace*: w is saved, the parameter is changed in place, and undoing copies w. For parameters whose storage others
  see: DTensors, tied or viewed or shared memory, a module's flat weights. With perturb="offload" the saved w waits in
  the host's memory, for models that leave no room for it on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fenland.algebra import Scalar, Vector
from fenland.algebra.fresh import clones, fresh_like
from fenland.algebra.lists import addcmul_into
from fenland.algebra.shards import local
from fenland.step.storage import StorageCache, why_not_movable

STRATEGIES = ("auto", "swap", "inplace", "offload")  # "auto" swaps wherever it may: faster at every size (benchmarks/)


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
            whole: those that may be are known to have a storage to themselves.

        Raises:
            ValueError: perturb="swap" and a parameter's storage must not be exchanged.
        """
        self.params = list(params)
        swaps = self._swaps(params)
        torch.clear_autocast_cache()  # casts of w must not serve at w + e
        if False not in swaps and False not in owned and self._cache.all_fit(direction, whole):  # as nearly always
            self._go((True, True), self.params, direction, steps, plain=self._cache.plain)
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
        self._swapped, self._changed, self.params = [], [], []

    def _swaps(self, params: Sequence[Tensor]) -> list[bool]:
        """Each parameter's strategy; asked before anybody makes a view of the weights."""
        if self.strategy in ("inplace", "offload"):
            return [False] * len(params)
        if self._cache.all_movable(params):
            return [True] * len(params)
        return [self._may_swap(p) for p in params]

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
        ws = [p.data for p in params]
        there = us if overwrites else fresh_like(ws)
        addcmul_into(ws, us, s, out=there, plain=plain)
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
