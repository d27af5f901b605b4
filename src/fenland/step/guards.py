"""What pass 2 must not leave behind: changed buffers, advanced random generators, advanced state of modules."""

from __future__ import annotations

import copy
import random
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra.shards import local

Seat = tuple[nn.Module, str]  # a module and the name of one of its buffers or attributes
_FEW = 16  # elements of a tensor that is a pointer or a counter
OPT_IN = "fenland_guarded"  # a module lists here the attributes that a forward advances


class Snapshot:
    """Buffers, generator states and guarded attributes at one moment.

    Attributes:
        buffers: by seat, the tensor object that sat there and a copy of its content; (None, None) for an empty seat.
        random: by a key that says whose, what sets the generator's state, and the state.
        guarded: by seat, the value of an attribute that its module lists in `fenland_guarded`, and a copy of it.
    """

    __slots__ = ("__weakref__", "buffers", "guarded", "random")
    buffers: dict[Seat, tuple[Tensor | None, Tensor | None]]
    random: dict[Any, tuple[Callable[[Any], Any], Any]]
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
        own: the optimizer's parameters, which move by its steps alone.
    """

    def __init__(
        self,
        model: nn.Module | None,
        replay_rng: bool,
        devices: Iterable[torch.device],
        own: Iterable[Tensor] = (),
    ) -> None:
        self.model, self.replay_rng = model, replay_rng
        self.devices = sorted({d for d in devices if d.type not in ("cpu", "meta")}, key=str)
        self._seats: list[Seat] | None = None  # of generators and guarded attributes, looked for once
        self.checked, self._own = model is None, {id(p) for p in own}

    def take(self) -> Snapshot:
        """The state now. Costs one copy of each buffer."""
        now = Snapshot()
        now.random, now.guarded, now.buffers = {}, {}, {}
        if self.replay_rng:
            now.random["torch"] = torch.set_rng_state, torch.get_rng_state()
            now.random["python"] = random.setstate, random.getstate()
            if "numpy" in sys.modules:
                numpy = sys.modules["numpy"].random
                now.random["numpy"] = numpy.set_state, numpy.get_state()
            for d in self.devices:
                module = torch.get_device_module(d)
                now.random[d] = partial(module.set_rng_state, device=d), module.get_rng_state(d)
        if self.model is None:
            return now
        if self._seats is None:
            self._seats = list(_seats_of(self.model))
        for seat in self._seats:
            self._take_seat(seat, now)
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

    def _take_seat(self, seat: Seat, now: Snapshot) -> None:
        """A generator that a module holds, or an attribute that it has asked to be guarded."""
        value = seat[0].__dict__.get(seat[1])
        if not _is_generator(value):
            now.guarded[seat] = value, value.detach().clone() if isinstance(value, Tensor) else value
        elif self.replay_rng:
            now.random[seat] = partial(_set_state, value), _state(value)

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
        for set_state, state in then.random.values():
            set_state(state)

    def undo_where(self, undo: Tensor, then: Snapshot) -> None:
        """Bring buffers back where the 0-d bool tensor says so, without asking the host; generators stay."""
        for buffer, content in then.buffers.values():
            if buffer is not None and content is not None and buffer.shape == content.shape:
                buffer.copy_(torch.where(undo.to(buffer.device), content, buffer))

    # State that is no buffer: found by comparing, once.

    def attributes(self, alone: bool = False) -> dict[Seat, Any] | None:
        """Plain numbers and tensors that sit on modules as attributes, on the first step; None later.

        And parameters that no step of ours moves: frozen ones, such as a momentum encoder's, and where no other
        optimizer's two calls can be under way (`alone`) those of others.
        """
        if self.checked or self.model is None:
            return None
        still = {
            (module, name): _beginning(p)
            for module in self.model.modules()
            for name, p in module._parameters.items()
            if p is not None
            and not nn.parameter.is_lazy(p)
            and (not p.requires_grad or (alone and id(p) not in self._own))
        }
        return still | {
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
        twice = [seat for seat, value in last.items() if _advanced(before.get(seat), first.get(seat), value)]
        found = sorted(f"{type(m).__name__}.{name}" for m, name in twice if name not in m._parameters)
        # A momentum encoder starts as its twin, so that its first update, in pass 1, changes nothing yet.
        written = [(m, name) for (m, name), value in last.items() if value != first.get((m, name))]
        moved = [f"{type(m).__name__}.{name}" for m, name in written if name in m._parameters]
        if found:
            warnings.warn(
                f"{', '.join(found)} changed in pass 1 and again in pass 2, at the ascent point: no buffer, so fenland "
                f"does not bring it back. Make it a buffer, or name it in the module: self.{OPT_IN} = ('...',)",
                UserWarning,
                stacklevel=5,
            )
        if moved:
            warnings.warn(
                f"{len(moved)} parameters that this optimizer does not train, such as {moved[0]}, changed in pass 2, "
                "at the ascent point: forward and closure run twice a step, so update a momentum encoder, or another "
                "optimizer's part, after step()",
                UserWarning,
                stacklevel=5,
            )


def _beginning(p: Tensor) -> str:
    """The first few numbers of a parameter: whoever updates it changes them, and `p.data` has no version of its own."""
    x = local(p.detach())
    while x.dim() > 1 and x.numel():
        x = x[0]
    return "" if x.is_meta else str(x.reshape(-1)[:_FEW].tolist())  # as text, so that NaN equals itself


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
            if _is_generator(value) or name in listed:
                yield module, name


def _is_generator(value: Any) -> bool:
    """Whether it is a random generator of torch, Python or NumPy."""
    numpy = sys.modules.get("numpy")
    ours = (numpy.random.Generator, numpy.random.RandomState) if numpy is not None else ()
    return isinstance(value, (torch.Generator, random.Random, *ours))


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    return copy.deepcopy(generator.bit_generator.state) if _has_bits(generator) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif _has_bits(generator):
        generator.bit_generator.state = copy.deepcopy(state)
    else:
        generator.set_state(state)


def _has_bits(generator: Any) -> bool:
    """Whether it is one of NumPy's new kind."""
    return type(generator).__module__.startswith("numpy") and type(generator).__name__ == "Generator"


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
