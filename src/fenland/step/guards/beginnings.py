"""Where a step of the two-call form began: at the first forward whose graph a backward has gone through.

Nobody tells the optimizer that a step begins, and not every forward is one: models are evaluated, diagnosed and probed
between steps, whole or in parts. So each forward that may belong to a step leaves a snapshot from before it with the
graph that it makes (the graph alone holds it), and the backward that reaches it says that it counts.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class Beginning:
    """A snapshot from before a forward, and its number among the forwards."""

    def __init__(self, number: int, snapshot: Any) -> None:
        self.number, self.snapshot = number, snapshot


class ForwardWatch:
    """Watches the outermost calls of a model and of its parts.

    Args:
        model: the module whose buffers and randomness are guarded.
        take: makes a snapshot.
    """

    def __init__(self, model: nn.Module, take: Callable[[], Any]) -> None:
        self._take = take
        self.model = model
        self.quiet = False
        self._number = 0
        self._found: Beginning | None = None
        self._silent: dict[int, Beginning] = {}  # forwards without a graph: reentrant checkpoints build theirs later
        self._outermost: Any = None  # the handle of the hook at the end of the call that is running
        hook = _Hook(weakref.ref(self))
        for module in model.modules():
            if not isinstance(module, torch.jit.ScriptModule):  # torch hooks none: it runs unseen, as a compiled one
                _remove_dead(module)
                module.register_forward_pre_hook(hook)

    def beginning(self) -> Any:
        """The snapshot from before the forward that the gradients began with; None where no forward was seen."""
        return None if self._found is None else self._found.snapshot

    def begin_anew(self) -> None:
        """A step has ended: what came before counts no more."""
        self._found = None
        self._silent.clear()

    def _enter(self, module: nn.Module) -> None:
        recomputed = torch._C._current_graph_task_id() != -1
        if self._found is not None and not recomputed and all(p.grad is None for p in self.model.parameters()):
            self._found = None  # its gradients were given up: it was a probe (FGSM), not a step's first pass
        if recomputed:  # a backward runs this forward again: a checkpoint
            self._count(self._silent.pop(id(module), None))
        elif self._found is None and (torch.is_grad_enabled() or module.training):
            self._number += 1
            self._silent[id(module)] = Beginning(self._number, self._take())
        else:
            return
        me = weakref.ref(self)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            watch = me()
            if watch is not None:
                watch._leave(module, output)

        self._outermost = module.register_forward_hook(leave, always_call=True)

    def _leave(self, module: nn.Module, output: Any) -> None:
        self._outermost.remove()
        self._outermost = None
        if id(module) not in self._silent or not torch.is_grad_enabled():
            return
        beginning = self._silent.pop(id(module))
        me = weakref.ref(self)

        def reached(grad: Tensor) -> None:
            watch = me()
            if watch is not None:
                watch._count(beginning)

        for x in _tensors(output):
            if x.grad_fn is not None:
                x.register_hook(reached)  # type: ignore[no-untyped-call]

    def _count(self, beginning: Beginning | None) -> None:
        if beginning is None or self.quiet:
            return
        if self._found is None or beginning.number < self._found.number:
            self._found = beginning


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a module returned: nested, or the attributes of an object."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__"):
            yield from (x for x in vars(leaf).values() if isinstance(x, Tensor))


class _Hook:
    """The hook on a module. Copies of the module (an EMA, a pickle) get an inert one: they are not the one trained.

    While torch.compile traces a module its hooks are invisible: compiled code has no place for a snapshot, which is
    taken at the eager call around it.
    """

    def __init__(self, watch: weakref.ref[ForwardWatch] | None = None) -> None:
        self.watch = watch

    @property
    def dead(self) -> bool:
        """Whether nobody is to be told any more."""
        return self.watch is None or self.watch() is None

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        watch = self.watch() if self.watch is not None else None
        if watch is not None:
            if not watch.quiet and watch._outermost is None:
                watch._enter(module)
        else:  # torch calls hooks from a copy of their list
            _remove_dead(module)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


def _remove_dead(module: nn.Module) -> None:
    """Take away the hooks of watches that are gone; here, since a garbage collector may come in a forward's middle."""
    for key in [k for k, hook in module._forward_pre_hooks.items() if isinstance(hook, _Hook) and hook.dead]:
        del module._forward_pre_hooks[key]
