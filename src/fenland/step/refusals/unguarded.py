"""What no `model=` holds is guarded by nobody: one pass at w + e is watched for what should be."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class UnguardedWarning:
    """Watches the calls of modules in the pass at w + e of one step, and notes what that pass changes unseen.

    Only modules count that hold parameters of the optimizer and that no `model=` holds: without `model=` all of them,
    with the wrong `model=` those that train, with a part of the network the rest. That a module draws random
    numbers is seen from the generator, so that `F.dropout`, attention and recurrent layers count as `nn.Dropout` does.
    The hooks are torch's global ones, which are everybody's: they are there between `watch` and `stop`, never longer.

    Args:
        params: identities of the optimizer's parameters that no `model=` holds.
        guarded: the modules that `model=` named.
    """

    def __init__(self, params: set[int], guarded: Iterable[nn.Module] = ()) -> None:
        self._params = params
        self._guarded = {id(m) for model in guarded for m in model.modules()}
        self._seen: set[int] = set()
        self._buffers: str | None = None
        self._random: str | None = None
        self._outermost: tuple[int, Tensor] | None = None
        self._handles: list[Any] = []

    def watch(self) -> None:
        """Begin to watch, until `stop`."""
        me = weakref.ref(self)  # an optimizer that is abandoned at w + e must not be kept alive

        def enter(module: nn.Module, args: Any) -> None:
            warning = me()
            if warning is not None and not torch.compiler.is_compiling():
                warning._enter(module)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            warning = me()
            if warning is not None and not torch.compiler.is_compiling():
                warning._leave(module)

        self._handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        for handle in self._handles:
            weakref.finalize(self, handle.remove)  # holds the handle from outside any cycle

    def stop(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._outermost = [], None

    def _enter(self, module: nn.Module) -> None:
        if id(module) in self._guarded:
            return
        if id(module) not in self._seen:
            inside = list(module.modules())
            if not any(id(p) in self._params for p in module.parameters()):
                self._seen.update(id(m) for m in inside)
                return
            for m in inside:
                if id(m) not in self._guarded and any(b is not None for b in m._buffers.values()):
                    self._buffers = self._buffers or type(m).__name__
        if self._outermost is None and self._random is None and torch.is_grad_enabled() and not self._wraps(module):
            self._outermost = id(module), torch.get_rng_state()

    def _wraps(self, module: nn.Module) -> bool:
        """Whether a guarded module is inside, whose random numbers are replayed."""
        return bool(self._guarded) and any(id(m) in self._guarded for m in module.modules())

    def _leave(self, module: nn.Module) -> None:
        if self._outermost is None or self._outermost[0] != id(module):
            return
        if not torch.equal(self._outermost[1], torch.get_rng_state()):
            self._random = type(module).__name__
        self._outermost = None

    def close(self, of_randomness: bool) -> None:
        """Stop watching; warn once if something was found, of randomness only where pass 2 should replay it."""
        self.stop()
        found = []
        if self._buffers:
            found.append(f"{self._buffers} has buffers, which the pass at the ascent point changes a second time")
        if self._random and of_randomness:
            found.append(f"{self._random} draws random numbers (dropout?), and others at the ascent point")
        if found:
            cure = "build the optimizer with model=your_model and fenland guards both"
            if self._guarded:
                cure = "model= does not hold it: give model= the module that holds all parameters of the optimizer"
            warnings.warn(
                f"{' and '.join(found)}; {cure}",
                UserWarning,
                stacklevel=5,
            )


def watch_of_unguarded(params: Iterable[Tensor], guarded: Sequence[nn.Module]) -> UnguardedWarning | None:
    """A watch, if one of the optimizer's parameters is held by no module that `model=` named."""
    rest = {id(p) for p in params} - {id(p) for model in guarded for p in model.parameters()}
    return UnguardedWarning(rest, guarded) if rest else None
