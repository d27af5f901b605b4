"""A warning for models that nobody named: their buffers (and in the two-call form their dropout) are not guarded."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook


class Lookout:
    """Watches every module call until the first ascent and notes what the second pass would change unseen.

    Only modules that hold parameters of the optimizer count, with all that is inside them.
    """

    def __init__(self, params: Iterable[Tensor]) -> None:
        self._params = {id(p) for p in params}
        self._seen: set[int] = set()
        self._buffers: str | None = None
        self._dropout: str | None = None
        me = weakref.ref(self)  # the hook is global: it must not keep an abandoned optimizer alive

        def look(module: nn.Module, args: Any) -> None:
            lookout = me()
            if lookout is not None:
                lookout._look(module)

        self._handle = register_module_forward_pre_hook(look)
        weakref.finalize(self, self._handle.remove)  # holds the handle from outside any cycle

    def _look(self, module: nn.Module) -> None:
        if id(module) in self._seen:
            return
        inside = list(module.modules())
        self._seen.update(id(m) for m in inside)
        if not any(id(p) in self._params for p in module.parameters()):
            return
        for m in inside:
            if any(b is not None for b in m._buffers.values()):
                self._buffers = self._buffers or type(m).__name__
            if isinstance(m, _DropoutNd) and m.training and m.p > 0:
                self._dropout = self._dropout or type(m).__name__

    def close(self, randomness_replayed: bool) -> None:
        """Stop watching; warn once if something was found."""
        self._handle.remove()
        found = []
        if self._buffers:
            found.append(f"{self._buffers} has buffers, which the pass at the ascent point changes a second time")
        if self._dropout and not randomness_replayed:
            found.append(f"{self._dropout} is active and draws another mask at the ascent point")
        if found:
            warnings.warn(
                f"{' and '.join(found)}; build the optimizer with model=your_model and fenland guards both",
                UserWarning,
                stacklevel=4,
            )
