"""What pass 2 must not leave behind: changed buffers, advanced random generators, advanced state of modules.

Most closures draw from torch alone, and reading the state of Python's and NumPy's global generators by their own
functions costs more than all other guards of a small step (numpy 2.4: 41 us to get, 44 us to set). Both are Mersenne
Twisters whose state lies in memory at a known place: there it is read as bytes, and it is set, by the generator's own
function, only where it has moved. Where that place cannot be made sure of (another interpreter, another bit generator)
the generator's own functions read it, too.
"""

from __future__ import annotations

import copy
import ctypes
import random
import struct
import sys
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fenland.algebra.shards import local
from fenland.step.attributes import OPT_IN, content_of, refill

States = dict[Any, Any]  # by whose: "torch", "python", "numpy", a device, or a generator that somebody holds
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
        _set_states(then.random, {} if now is None else now.random)

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


# Random generators.

_WORDS = 624  # of a Mersenne Twister, beside a position among them
_BYTES = 4 * _WORDS + 4
_HEAD = object.__basicsize__  # of an object in CPython's memory; its own fields follow


def states_of(devices: Iterable[torch.device], held: Iterable[Any]) -> States:
    """The state now of the global generators, those of `devices`, and the generators `held`."""
    now: States = {"torch": torch.get_rng_state()}
    now["python"] = random.getstate() if _python is None else (_python.raw, random._inst.gauss_next)  # type: ignore[attr-defined]
    if "numpy" in sys.modules:
        now["numpy"] = _numpy.state()
    for d in devices:
        now[d] = torch.get_device_module(d).get_rng_state(d)
    for generator in held:
        if isinstance(generator, random.Random):
            now[generator] = generator.getstate()
        else:
            now[generator] = _copied(generator.bit_generator.state) if _has_bits(generator) else generator.get_state()
    return now


def _set_states(then: States, now: States) -> None:
    """Set every generator to the state that it had then; `now` has what is known of their states now."""
    for whose, state in then.items():
        if whose == "torch":
            torch.set_rng_state(state)
        elif whose == "python":
            _set_python(state, now.get(whose))
        elif whose == "numpy":
            if state != (now[whose] if whose in now else _numpy.state()):
                _numpy.set(state)
        elif isinstance(whose, torch.device):
            torch.get_device_module(whose).set_rng_state(state, device=whose)
        else:
            _set_held(whose, state)


def _set_python(state: Any, now: Any) -> None:
    if _python is None:
        random.setstate(state)
    elif state != (now or (_python.raw, random._inst.gauss_next)):  # type: ignore[attr-defined]
        position, *words = struct.unpack(f"=i{_WORDS}I", state[0])
        random.setstate((random.Random.VERSION, (*words, position), state[1]))


def _set_held(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif _has_bits(generator):
        generator.bit_generator.state = _copied(state)
    else:
        generator.set_state(state)


def is_generator(value: Any) -> bool:
    """Whether it is a random generator of torch, Python or NumPy."""
    numpy = sys.modules.get("numpy")
    ours = (numpy.random.Generator, numpy.random.RandomState) if numpy is not None else ()
    return isinstance(value, (torch.Generator, random.Random, *ours))


def _has_bits(generator: Any) -> bool:
    """Whether it is one of NumPy's new kind."""
    return type(generator).__module__.startswith("numpy") and type(generator).__name__ == "Generator"


_copied = copy.deepcopy  # a bit generator's state is a dict of arrays


def _memory(address: int, size: int) -> Any:
    """That memory, read anew whenever its `raw` is asked for."""
    return (ctypes.c_char * size).from_address(address)


def _find_python() -> Any:
    """Where Python's global generator keeps its position and words; None unless a probe's are found there."""
    probe = random.Random(1)
    if sys.implementation.name != "cpython" or random.Random.__basicsize__ < _HEAD + _BYTES:
        return None
    probe.random()
    *words, position = probe.getstate()[1]
    found = _memory(id(probe) + _HEAD, _BYTES).raw == struct.pack(f"=i{_WORDS}I", position, *words)
    return _memory(id(random._inst) + _HEAD, _BYTES) if found else None


class _NumPy:
    """NumPy's global generator.

    Its words and their position are its bit generator's, at an address that NumPy tells. Whether it keeps the second of
    two normal numbers (a draw that moves no word), and which, lies in the generator itself, where a probe says.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, Any] = None, None  # generator and bit generator, which `set_bit_generator` may change
        self._words: Any = None  # its memory; None: not known
        self._normal: Any = None

    def state(self) -> Any:
        """(words and position, the kept normal number) as bytes, or what `get_state` says."""
        generator = sys.modules["numpy"].random.mtrand._rand
        bits = generator._bit_generator
        if bits is not self._seen[1] or generator is not self._seen[0]:
            self._look(generator, bits)
        if self._words is None:
            return _Full(generator.get_state(legacy=False))
        with bits.lock:
            return self._words.raw, self._normal.raw

    def set(self, state: Any) -> None:
        """Set a state that `state()` gave."""
        numpy: Any = sys.modules["numpy"]
        if isinstance(state, tuple):
            words = numpy.frombuffer(state[0], numpy.uint32, _WORDS)
            (position,) = struct.unpack_from("=i", state[0], 4 * _WORDS)
            numpy.random.set_state(("MT19937", words, position, *struct.unpack("=ixxxxd", state[1])))
        else:
            numpy.random.set_state(state.state)

    def _look(self, generator: Any, bits: Any) -> None:
        self._seen, self._words = (generator, bits), None
        kind = sys.modules["numpy"].random.MT19937
        if sys.implementation.name != "cpython" or type(bits) is not kind:
            return
        probe = type(generator)(kind(1))
        probe.standard_normal()  # one is drawn, one is kept
        _, words, position, kept, normal = probe.get_state()
        known = probe._bit_generator.ctypes.state_address
        size = type(generator).__basicsize__ - _HEAD
        at = _memory(id(probe) + _HEAD, size).raw.find(struct.pack("=ixxxxd", kept, normal))
        if at >= 0 and _memory(known, _BYTES).raw == words.tobytes() + struct.pack("=i", position):
            probe.standard_normal()
            after = struct.unpack("=ixxxxd", _memory(id(probe) + _HEAD + at, 16).raw)
            if after == probe.get_state()[3:]:
                self._words = _memory(bits.ctypes.state_address, _BYTES)
                self._normal = _memory(id(generator) + _HEAD + at, 16)


class _Full:
    """A state as `get_state` gives it, equal to no other: it is always set."""

    def __init__(self, state: Any) -> None:
        self.state = state


_python, _numpy = _find_python(), _NumPy()
