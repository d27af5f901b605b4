"""What the second pass must not leave behind: changed buffers and another state of the random generators."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra.shards import local

Seat = tuple[nn.Module, str]  # a module and the name of one of its buffers


@dataclass
class Snapshot:
    """Buffers and generator states at one moment.

    Attributes:
        buffers: by seat, the tensor object that sat there and a copy of its content; (None, None) for an empty seat.
        cpu: the CPU generator's state; None where randomness is not replayed.
        devices: generator states by device.
    """

    buffers: dict[Seat, tuple[Tensor | None, Tensor | None]]
    cpu: Tensor | None
    devices: dict[torch.device, Tensor]


class Guard:
    """Takes and brings back snapshots of one model's buffers and of the generators its devices use."""

    def __init__(self, model: nn.Module | None, replay_rng: bool, devices: Iterable[torch.device]) -> None:
        self.model = model
        self.replay_rng = replay_rng
        self.devices = sorted({d for d in devices if d.type not in ("cpu", "meta")}, key=str)

    def take(self) -> Snapshot:
        """The state now. Costs one copy of each buffer."""
        rng = self.replay_rng
        cpu = torch.get_rng_state() if rng else None
        devices = {d: torch.get_device_module(d).get_rng_state(d) for d in self.devices} if rng else {}
        return Snapshot(self._buffers(), cpu, devices)

    def bring_back(self, then: Snapshot) -> None:
        """Make every buffer and generator as it was: rebound buffers sit again, lazily made ones are gone again."""
        if self.model is not None:
            self._seat(then.buffers)
        if then.cpu is not None:
            torch.set_rng_state(then.cpu)
        for device, state in then.devices.items():
            torch.get_device_module(device).set_rng_state(state, device)

    def undo_where(self, undo: Tensor, then: Snapshot) -> None:
        """Bring buffers back where the 0-d bool tensor says so, without asking the host; generators stay."""
        for buffer, content in then.buffers.values():
            if buffer is not None and content is not None and buffer.shape == content.shape:
                buffer.copy_(torch.where(undo.to(buffer.device), content, buffer))

    def _buffers(self) -> dict[Seat, tuple[Tensor | None, Tensor | None]]:
        if self.model is None:
            return {}
        weights = {_address(p) for p in self.model.parameters()}
        return {
            (module, name): (buffer, None if buffer is None or _skip(buffer, weights) else buffer.detach().clone())
            for module in self.model.modules()
            for name, buffer in module._buffers.items()
        }

    def _seat(self, buffers: dict[Seat, tuple[Tensor | None, Tensor | None]]) -> None:
        for module in self.model.modules() if self.model is not None else ():
            for name in [n for n in module._buffers if (module, n) not in buffers]:
                del module._buffers[name]
        with torch.no_grad():
            for (module, name), (buffer, content) in buffers.items():
                module._buffers[name] = buffer
                if buffer is not None and content is not None:
                    _refill(buffer, content)


def _skip(buffer: Tensor, weights: set[int]) -> bool:
    """Buffers without content yet, and those that are a weight under another name: the journey brings these back."""
    return nn.parameter.is_lazy(buffer) or _address(buffer) in weights


def _address(t: Tensor) -> int:
    return 0 if nn.parameter.is_lazy(t) else local(t.detach()).untyped_storage().data_ptr() or -1


def _refill(buffer: Tensor, content: Tensor) -> None:
    if buffer.shape == content.shape:
        buffer.copy_(content)
    else:  # resized in place meanwhile
        buffer.resize_(content.shape).copy_(content)


class ForwardWatch:
    """Calls back at the first training forward of a model after it is armed: where the two-call form's step begins.

    Nobody says which module the loop calls (the model, or the network inside a trainer's module), so all are watched
    until one is called; what is inside that one is then left alone. The hooks of a watch that is gone leave at their
    module's next forward, or when the model is watched anew: the garbage collector, which may come in the middle of a
    forward, must not change the hooks that torch is going through.
    """

    def __init__(self, model: nn.Module, on_first: Callable[[], None]) -> None:
        self.model = model
        self.on_first = on_first
        self.armed = True
        self._hook = _Hook(weakref.ref(self))
        self._outermost: set[int] = set()
        for module in model.modules():
            _leave(module, lambda hook: isinstance(hook, _Hook) and hook.dead)
            module.register_forward_pre_hook(self._hook)

    def called(self, module: nn.Module) -> None:
        """A watched module is about to run."""
        if id(module) not in self._outermost:
            self._outermost.add(id(module))
            for part in module.modules():
                if part is not module:
                    _leave(part, lambda hook: hook is self._hook)
        if self.armed and torch.is_grad_enabled():
            self.armed = False
            self.on_first()


class _Hook:
    """The hook on the model. Copies of the model (an EMA, a pickle) get an inert one: they are not the one trained."""

    def __init__(self, watch: weakref.ref[ForwardWatch] | None = None) -> None:
        self.watch = watch

    @property
    def dead(self) -> bool:
        """Whether nobody is to be told any more."""
        return self.watch is None or self.watch() is None

    def __call__(self, module: nn.Module, args: Any) -> None:
        watch = self.watch() if self.watch is not None else None
        if watch is not None:
            watch.called(module)
        else:
            _leave(module, lambda hook: hook is self)  # torch calls hooks from a copy of their list

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


def _leave(module: nn.Module, gone: Callable[[Any], bool]) -> None:
    for key in [key for key, hook in module._forward_pre_hooks.items() if gone(hook)]:
        del module._forward_pre_hooks[key]
