"""Buffers, random generators and advanced state of modules: taken before a pass, brought back after it."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra.shards import local
from fenland.step.guards.generators import States, is_generator, set_states, states_of

OPT_IN = "fenland_guarded"  # a module lists here the attributes that a forward advances
CONTAINERS = (list, dict, set, deque)
Seat = tuple[nn.Module, str]  # a module and the name of one of its buffers or attributes


class Snapshot:
    """Buffers, generator states and guarded attributes at one moment.

    Attributes:
        buffers: by seat, the tensor object that sat there and a copy of its content; (None, None) for an empty seat.
        random: states of generators.
        guarded: by seat, the value of an attribute that its module lists in `fenland_guarded`, and a copy of it.
    """

    __slots__ = ("__weakref__", "buffers", "guarded", "random")
    buffers: dict[Seat, tuple[Tensor | None, Tensor | None]]
    random: States
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

    def take(self) -> Snapshot:
        """The state now. Costs one copy of each buffer."""
        now = Snapshot()
        now.random, now.guarded, now.buffers = {}, {}, {}
        held = []
        if self._seats is None:
            self._seats = [] if self.model is None else list(_seats_of(self.model))
        for module, name in self._seats:
            value = module.__dict__.get(name)
            if is_generator(value):
                held.append(value)
            else:
                now.guarded[module, name] = value, content_of(value)
        if self.replay_rng:
            now.random = states_of(self.devices, held)
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

    def bring_back(self, then: Snapshot, now: Snapshot | None = None) -> None:
        """Make everything as it was: rebound buffers sit again, lazily made ones are gone again.

        Args:
            then: what is brought back.
            now: the state of generators now, where it has just been taken.
        """
        if self.model is not None:
            for module in self.model.modules():
                for name in list(module._buffers.keys()):
                    if (module, name) not in then.buffers:
                        del module._buffers[name]
            with torch.no_grad():
                for (module, name), (buffer, content) in then.buffers.items():
                    module._buffers[name] = buffer
                    if buffer is not None and content is not None:
                        _refill(buffer, content)
                for (module, name), (value, content) in then.guarded.items():
                    refill(value, content)
                    module.__dict__[name] = value
        set_states(then.random, {} if now is None else now.random)

    def undo_where(self, undo: Tensor, then: Snapshot) -> None:
        """Bring buffers back where the 0-d bool tensor says so, without asking the host; generators stay."""
        for buffer, content in then.buffers.values():
            if buffer is not None and content is not None and buffer.shape == content.shape:
                buffer.copy_(torch.where(undo.to(buffer.device), content, buffer))


def _seats_of(model: nn.Module) -> Iterable[Seat]:
    for module in model.modules():
        listed = getattr(module, OPT_IN, ())
        for name, value in module.__dict__.items():
            if is_generator(value) or name in listed:
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


def content_of(value: Any) -> Any:
    """A copy of what an attribute holds: a tensor's numbers, a container's elements with their numbers."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if not isinstance(value, CONTAINERS):
        return value
    elements = value.values() if isinstance(value, dict) else value
    return copy.copy(value), [(x, x.detach().clone()) for x in elements if isinstance(x, Tensor)]


def refill(value: Any, content: Any) -> None:
    """Make the contents as they were when `content_of` copied them."""
    if isinstance(value, Tensor):
        value.copy_(content)
    elif isinstance(value, CONTAINERS):
        elements, tensors = content
        put_back(value, elements)
        for x, numbers in tensors:
            x.copy_(numbers)


def put_back(held: Any, elements: Any) -> None:
    """Make a container hold these elements, and no others."""
    held.clear()
    held.extend(elements) if isinstance(held, (list, deque)) else held.update(elements)
