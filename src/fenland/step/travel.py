"""To the ascent point w + e and back, bit for bit: the only file that moves weights.

Two strategies, chosen parameter by parameter:

- *move*: w + e is written into another buffer (the gradient's own, where nobody else needs it) and the parameter points
  at it; the way back is pointing again at the untouched w. No copy, no restore pass.
- *copy*: w is saved, the parameter is changed in place, and the way back copies w. For parameters whose storage others
  see: DTensors, tied or viewed or shared memory, a module's flat weights. With travel="offload" the saved w waits in
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
from fenland.step.storage import Roster, why_not_movable

TRAVELS = (
    "auto",
    "move",
    "copy",
    "offload",
)  # "auto" moves wherever it may: measured faster at every size (benchmarks/)


class Journey:
    """One trip of some parameters to w + e and back. It records before it moves, so `back` is right at any moment."""

    def __init__(self, travel: str, roster: Roster) -> None:
        self.travel = travel
        self._roster = roster
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
        if self.travel in ("copy", "offload"):
            self._moves = [False] * len(params)
        elif self._roster.all_movable(params):
            self._moves = [True] * len(params)
        else:
            self._moves = [self._may_move(p) for p in params]

    def depart(
        self, direction: Vector, steps: Scalar | list[Scalar], owned: Sequence[bool], whole: bool = False
    ) -> None:
        """Bring every planned parameter from w to w + step * direction.

        Args:
            direction: local tensors of the parameters' shapes.
            steps: rho * scale, one scalar for all or one a parameter.
            owned: whether `direction`'s buffer may be overwritten, one flag a parameter.
            whole: those that may be are known to have a storage to themselves.
        """
        params = self._params
        torch.clear_autocast_cache()
        if False not in self._moves and all(owned) and self._roster.all_fit(direction, whole):  # as nearly always
            self._go((True, True), params, direction, steps, plain=self._roster.plain)
            return
        each = zip(self._moves, owned, direction, params, strict=True)
        flags = [(m, o and (not m or _fits(u, p))) for m, o, u, p in each]
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
            if self.travel == "offload":
                for _, x, w in self._copied:
                    x.copy_(w, non_blocking=True)  # in the order of the stream: what comes next sees w
            else:
                torch._foreach_copy_([x for _, x, _ in self._copied], [w for _, _, w in self._copied])
        if self._params:
            increment_version(self._params)  # a graph of pass 2 that is kept must not be used silently
            torch.clear_autocast_cache()  # casts of w + e must not serve at w, nor those of w at w + e
        self._moved, self._copied, self._params, self._moves = [], [], [], []

    def _go(
        self,
        kind: tuple[bool, bool],
        params: list[Tensor],
        us: Vector,
        s: Scalar | list[Scalar],
        plain: bool | None = None,
    ) -> None:
        moves, overwrites = kind
        if not moves:
            ws = [local(p) for p in params]
            saved = list(map(_on_host, ws)) if self.travel == "offload" else clones(ws)
            self._copied += list(zip(params, ws, saved, strict=True))
            addcmul_into(ws, us, s, out=ws, spend=overwrites)
            increment_version(params)
            return
        ws = [p.data for p in params]
        there = us if overwrites else fresh_like(ws)
        addcmul_into(ws, us, s, out=there, plain=plain)
        self._moved += list(zip(params, ws, strict=True))
        for p, x in zip(params, there, strict=True):
            p.data = x
        increment_version(params)  # a graph of pass 1 that is kept must not be used silently


def _on_host(w: Tensor) -> Tensor:
    """A copy of w in the host's memory, pinned where w is on a CUDA device, so that nothing waits for it."""
    if w.device.type != "cuda":
        return w.detach().clone() if w.is_cpu else w.detach().cpu()
    return torch.empty_like(w, device="cpu", pin_memory=True).copy_(w, non_blocking=True)


def _fits(u: Tensor, p: Tensor) -> bool:
    """Whether a parameter like p can live in u's buffer."""
    return (
        u.dtype == p.dtype
        and u.stride() == p.stride()
        and not u.requires_grad
        and u.untyped_storage().nbytes() == p.nbytes
        and u.device == p.device
    )
