"""A loss scale that a step was not told of: looked for once, in the first pass at w + e, before anything is stepped.

A `torch.amp.GradScaler` leaves no trace in a gradient, and torch notices a step that it was not asked about at
`scaler.update()`, one wrong step later. But while a backward runs, the tensor that it was called on is known. Where
that is a multiple of a loss, and exactly the one that an active scaler of this process makes of it, the loss is scaled.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class LossScaleWatch:
    """Looks at one backward of an optimizer whose step has no scaler.

    Attributes:
        due: it has not looked yet, or has found a scale and refuses until the step is told of it.
    """

    def __init__(self) -> None:
        self.due = True
        self._scale: float | None = None
        self._handles: list[Any] = []

    def watch(self, params: Iterable[Tensor], scaling: Any) -> None:
        """Begin to watch, until `refuse` or `stop`; a step that has a scaler needs no watch, now and later.

        Args:
            params: the first of them whose gradient comes tells which backward it is.
            scaling: the step's `Scaled`, or None.
        """
        self.stop()
        if scaling is not None:
            self.due = False
            return
        me, thread = weakref.ref(self), threading.get_ident()

        def reached(_: Tensor) -> None:
            watch = me()
            if watch is not None and watch._handles:
                watch.stop()
                watch._scale = _scale_of(_roots(thread))

        leaves: list[Any] = [p for p in params if p.is_leaf and p.requires_grad]
        self._handles = [p.register_post_accumulate_grad_hook(reached) for p in leaves]

    def stop(self) -> None:
        """Let go of the parameters."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def refuse(self, two_calls: bool) -> None:
        """The pass at w + e has run.

        Raises:
            RuntimeError: its loss was scaled.
        """
        self.stop()
        scale, self._scale = self._scale, None
        self.due = scale is not None
        if scale is not None:
            cure = (
                "ascend(scaler=scaler) and descend(scaler=scaler)" if two_calls else "opt.step(closure, scaler=scaler)"
            )
            raise RuntimeError(
                f"the loss is scaled by a GradScaler (by {scale:g}) that this step was not told of, so e and d would "
                f"be those of scaled gradients: call {cure}, and scaler.update() after the step; all is as before it"
            )


def _roots(thread: int) -> list[Any]:
    """What the backward that runs now was called on, in that thread: an accelerator's hooks run in another one.

    The outermost call counts: a reentrant checkpoint runs a backward inside it.
    """
    frame, found = sys._current_frames().get(thread), []
    while frame is not None:
        if frame.f_code.co_name == "_engine_run_backward":
            found = list(frame.f_locals.get("t_outputs", ()))
        frame = frame.f_back
    return found


@torch.no_grad()
def _scale_of(roots: list[Any]) -> float | None:
    """The scale of the first of these tensors that an active scaler has made; None where none has."""
    products = {node: root for root in roots if (node := _factor_of(root)) is not None}
    scalers = _all_below(torch.amp.grad_scaler.GradScaler) if products else set()
    wanted = {*scalers, Tensor}
    found: list[Any] = [x for x in gc.get_objects() if type(x) in wanted] if products else []
    active = [x for x in found if type(x) in scalers and x.is_enabled() and x._scale is not None]
    for loss in found if active else ():
        if type(loss) is not Tensor or not loss.requires_grad or loss.grad_fn not in products:
            continue
        for scaler in active:
            scale = float(scaler.get_scale())
            if scale != 1 and torch.equal(scaler.scale(loss.detach()), products[loss.grad_fn].detach()):
                return scale
    return None


def _all_below(kind: type) -> set[type]:
    """The class with all its subclasses: asking each object in memory for its own type alone is quick."""
    return {kind}.union(*map(_all_below, kind.__subclasses__()))


def _factor_of(root: Any) -> Any:
    """Of a product with a constant the node of the other factor; else None."""
    node = root.grad_fn if isinstance(root, Tensor) else None
    if node is None or node.name() != "MulBackward0":
        return None
    factors = [after for after, _ in node.next_functions if after is not None]
    return factors[0] if len(factors) == 1 else None
