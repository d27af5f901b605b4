"""What pass 2 must not leave behind: changed buffers, advanced random generators, advanced state of modules."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra.shards import local
from fenland.step import generators

Seat = tuple[nn.Module, str]  # a module and the name of one of its buffers or attributes
_FEW = 16  # elements of a tensor that is a pointer or a counter
OPT_IN = "fenland_guarded"  # a module lists here the attributes that a forward advances


class Snapshot:
    """Buffers, generator states and guarded attributes at one moment.

    Attributes:
        buffers: by seat, the tensor object that sat there and a copy of its content; (None, None) for an empty seat.
        random: states of generators (`generators.py`).
        guarded: by seat, the value of an attribute that its module lists in `fenland_guarded`, and a copy of it.
    """

    __slots__ = ("__weakref__", "buffers", "guarded", "random")
    buffers: dict[Seat, tuple[Tensor | None, Tensor | None]]
    random: generators.States
    guarded: dict[Seat, tuple[Any, Any]]


# After-pass-1 snapshots of steps between ascend() and descend(). Another optimizer over the same model that ascends
# meanwhile takes from here what this one has brought back: so the order in which they finish does not matter.
_under_way: weakref.WeakSet[Snapshot] = weakref.WeakSet()


class Guard:
    """Takes and brings back snapshots of one model and of the random generators.

    Args:
        model: the module whose buffers are guarded; None guards generators alone.
        replay_rng: guard generators: torch's, Python's and NumPy's global ones, and those that the model holds.
        devices: whose torch generators.
    """

    def __init__(self, model: nn.Module | None, replay_rng: bool, devices: Iterable[torch.device]) -> None:
        self.model, self.replay_rng = model, replay_rng
        self.devices = sorted({d for d in devices if d.type not in ("cpu", "meta")}, key=str)
        self._seats: list[Seat] | None = None  # of generators and guarded attributes, looked for once
        self.checked = model is None

    def take(self) -> Snapshot:
        """The state now. Costs one copy of each buffer."""
        now = Snapshot()
        now.random, now.guarded, now.buffers = {}, {}, {}
        held = []
        if self._seats is None:
            self._seats = [] if self.model is None else list(_seats_of(self.model))
        for module, name in self._seats:
            value = module.__dict__.get(name)
            if generators.is_generator(value):
                held.append(value)
            else:
                now.guarded[module, name] = value, value.detach().clone() if isinstance(value, Tensor) else value
        if self.replay_rng:
            now.random = generators.states_of(self.devices, held)
        if self.model is None:
            return now
        weights: set[int] | None = None
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is None:
                    now.buffers[module, name] = None, None
                    continue
                weights = {_address(p) for p in self.model.parameters()} if weights is None else weights
                content = None if _holds_weights(buffer, weights) else buffer.detach().clone()
                now.buffers[module, name] = buffer, content
        return now

    def take_after_first(self) -> Snapshot:
        """The state after pass 1, also where another optimizer's step has taken some of it back already."""
        now = self.take()
        for other in list(_under_way):
            now.random.update({k: v for k, v in other.random.items() if k in now.random})
            now.buffers.update({k: v for k, v in other.buffers.items() if k in now.buffers})
            now.guarded.update({k: v for k, v in other.guarded.items() if k in now.guarded})
        _under_way.add(now)
        return now

    def bring_back(self, then: Snapshot) -> None:
        """Make everything as it was: rebound buffers sit again, lazily made ones are gone again."""
        for module in self.model.modules() if self.model is not None else ():
            for name in [n for n in module._buffers if (module, n) not in then.buffers]:
                del module._buffers[name]
        with torch.no_grad():
            for (module, name), (buffer, content) in then.buffers.items() if self.model is not None else ():
                module._buffers[name] = buffer
                if buffer is not None and content is not None:
                    _refill(buffer, content)
            for (module, name), (value, content) in then.guarded.items():
                if isinstance(value, Tensor):
                    value.copy_(content)
                module.__dict__[name] = value
        generators.bring_back(then.random)

    def undo_where(self, undo: Tensor, then: Snapshot) -> None:
        """Bring buffers back where the 0-d bool tensor says so, without asking the host; generators stay."""
        for buffer, content in then.buffers.values():
            if buffer is not None and content is not None and buffer.shape == content.shape:
                buffer.copy_(torch.where(undo.to(buffer.device), content, buffer))

    # State that is no buffer: found by comparing, once.

    def attributes(self) -> dict[Seat, Any] | None:
        """Plain numbers and tensors that sit on modules as attributes, on the first step; None later."""
        if self.checked or self.model is None:
            return None
        return {
            (module, name): _seen(value)
            for module in self.model.modules()
            if not type(module).__module__.startswith("torch.")  # torch's own keep what is state in buffers
            for name, value in module.__dict__.items()
            if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)
            if name not in getattr(module, OPT_IN, ())
        }

    def warn_of_advanced(self, states: list[dict[Seat, Any] | None]) -> None:
        """Warn once of attributes that each pass advanced: (before, after pass 1, after the last pass)."""
        self.checked = True
        before, first, last = states
        if before is None or first is None or last is None:
            return
        found = sorted(
            f"{type(module).__name__}.{name}"
            for (module, name), value in last.items()
            if _advanced(before.get((module, name)), first.get((module, name)), value)
        )
        if found:
            warnings.warn(
                f"{', '.join(found)} changed in pass 1 and again in pass 2, at the ascent point: no buffer, so fenland "
                f"does not bring it back. Make it a buffer, or name it in the module: self.{OPT_IN} = ('...',)",
                UserWarning,
                stacklevel=5,
            )


def _seen(value: Any) -> Any:
    """A number as it is, a few whole numbers as a list, any other tensor as who it is and how often it was written."""
    if not isinstance(value, Tensor):
        return value
    pointer = value.is_cpu and not value.is_floating_point() and not value.is_complex() and value.numel() <= _FEW
    return value.tolist() if pointer else (id(value), value._version)


def _advanced(before: Any, first: Any, last: Any) -> bool:
    if isinstance(last, tuple):  # a tensor: the same object, written to in both passes
        same = isinstance(before, tuple) and isinstance(first, tuple) and before[0] == first[0] == last[0]
        return same and before[1] < first[1] < last[1]
    return before is not None and first is not None and before != first and first != last


def _seats_of(model: nn.Module) -> Iterable[Seat]:
    for module in model.modules():
        listed = getattr(module, OPT_IN, ())
        for name, value in module.__dict__.items():
            if generators.is_generator(value) or name in listed:
                yield module, name


def _holds_weights(buffer: Tensor, weights: set[int]) -> bool:
    """Buffers without content yet, and those that are a weight under another name: undoing the ascent is theirs."""
    return nn.parameter.is_lazy(buffer) or _address(buffer) in weights


def _address(t: Tensor) -> int:
    return 0 if nn.parameter.is_lazy(t) else local(t.detach()).untyped_storage().data_ptr() or -1


def _refill(buffer: Tensor, content: Tensor) -> None:
    if buffer.shape == content.shape:
        buffer.copy_(content)
    else:  # resized in place meanwhile
        buffer.resize_(content.shape).copy_(content)
