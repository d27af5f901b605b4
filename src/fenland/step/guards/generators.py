"""States of random generators: torch's, Python's and NumPy's global ones, those of devices, and a model's own.

Many closures draw nothing, and reading the global generators by their own functions costs more than all other guards of
a small step (numpy 2.4: 41 us to get, 44 us to set). All three are Mersenne Twisters whose state lies in memory at a
known place: there is seen whether it has moved since the last look, and only then it is read, and set by its own
function. Where that place cannot be made sure of (another interpreter, another bit generator) the generator's own
functions read it, too.
"""

from __future__ import annotations

import copy
import ctypes
import random
import struct
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

States = dict[Any, Any]  # by whose: "torch", "python", "numpy", a device, or a generator that somebody holds

_WORDS = 624  # of a Mersenne Twister, beside a position among them
_BYTES = 4 * _WORDS + 4
_TORCH_HEAD = 24  # bytes of torch's state before its words; its own memory has as many there
_NEAR = 128  # bytes of it that may come before the words
_FRONT = 68  # of these bytes: a position and 16 words beside it
_HEAD = object.__basicsize__  # of an object in CPython's memory; its own fields follow


def states_of(devices: Iterable[torch.device], held: Iterable[Any]) -> States:
    """The state now of the global generators, those of `devices`, and the generators `held`."""
    now = _read()
    for d in devices:
        now[d] = torch.get_device_module(d).get_rng_state(d)
    for generator in held:
        if isinstance(generator, random.Random):
            now[generator] = generator.getstate()
        else:
            now[generator] = _copied(generator.bit_generator.state) if _has_bits(generator) else generator.get_state()
    return now


def _read() -> States:
    """The states of the global generators: of Python's and NumPy's words, position and kept normal number."""
    mark: Any = None if _torch.marks is None else (_torch.marks[0].raw, _torch.marks[1].raw)
    now: States = {"torch": _torch.state if mark is not None and mark == _torch.mark else _torch.keep(mark)}
    if _python is None:
        now["python"] = random.getstate()
    else:
        mark = _python.front.raw
        words = _python.state if mark == _python.mark else _python.keep(mark)
        now["python"] = words, random._inst.gauss_next  # type: ignore[attr-defined]
    if _numpy.module is not None or "numpy" in sys.modules:
        _numpy.module = _numpy.module or sys.modules["numpy"].random.mtrand
        generator = _numpy.module._rand
        bits = generator._bit_generator
        if bits is not _numpy.seen[1] or generator is not _numpy.seen[0]:
            _numpy.look(generator, bits)
        twister = _numpy.twister
        if twister is None:
            now["numpy"] = _Full(generator.get_state(legacy=False))
        else:
            mark = twister.front.raw
            now["numpy"] = twister.state if mark == twister.mark else twister.keep(mark), _numpy.normal.raw
    return now


def set_states(then: States, now: States) -> None:
    """Set every generator to the state that it had then; `now` has what is known of their states now."""
    now = now or (_read() if then else {})
    for whose, state in then.items():
        if whose == "torch":
            if state is not now[whose]:
                torch.default_generator.set_state(state)
        elif whose == "python":
            if state != now[whose]:
                _set_python(*state)
        elif whose == "numpy":
            if state != now[whose]:
                _numpy.set(state)
        elif isinstance(whose, torch.device):
            torch.get_device_module(whose).set_rng_state(state, device=whose)
        else:
            _set_held(whose, state)


def _set_python(*state: Any) -> None:
    if _python is not None:
        position, *words = struct.unpack(f"=i{_WORDS}I", state[0])
        state = random.Random.VERSION, (*words, position), state[1]
    random.setstate(state)


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


class _Copy:
    """A copy of a generator's state, which holds as long as the generator's memory shows the same mark.

    Attributes:
        mark: what that memory held before the copy was made, so that a draw in between is seen next time.
        state: the copy.
    """

    def __init__(self, take: Callable[[], Any]) -> None:
        self._take = take
        self.mark: Any = None
        self.state: Any = None

    def keep(self, mark: Any) -> Any:
        """Take a copy and return it; an interrupt on the way leaves one that no mark stands for."""
        self.mark = None
        self.state = self._take()
        self.mark = mark
        return self.state


class _Torch(_Copy):
    """Torch's global generator, whose state is taken anew only where it has moved since it was last.

    Its words lie in memory behind seed and position, and before the second of two normal numbers, which may be kept.

    Attributes:
        marks: the memory that moves with every draw; None: not known.
    """

    def __init__(self) -> None:
        super().__init__(torch.default_generator.get_state)
        self.marks = self._find(torch.default_generator)

    def _find(self, generator: torch.Generator) -> tuple[Any, Any] | None:
        """The generator's marks, if those of a probe move with each kind of draw."""
        probe = torch.Generator().manual_seed(1)
        torch.rand(3, generator=probe, device="cpu")
        if sys.implementation.name != "cpython" or not hasattr(probe, "_cdata"):
            return None
        state = bytes(probe.get_state().tolist())
        words = struct.pack(f"={_WORDS}I", *struct.unpack_from(f"={_WORDS}Q", state, _TORCH_HEAD))
        at = _memory(probe._cdata, len(words) + _NEAR).raw.find(words)
        if at < _TORCH_HEAD:
            return None
        marks = _torch_marks(probe, at)
        for draw in (
            lambda: torch.rand(1, generator=probe, device="cpu"),
            lambda: torch.randn(1, generator=probe, device="cpu"),
            lambda: torch.randn(1, generator=probe, device="cpu"),  # the one that was kept
            lambda: torch.randn(1, generator=probe, device="cpu", dtype=torch.float64),
            lambda: torch.randn(1, generator=probe, device="cpu", dtype=torch.float64),
            lambda: torch.rand(_WORDS, generator=probe, device="cpu"),
            lambda: probe.manual_seed(2),
        ):
            before = [x.raw for x in marks]
            draw()
            if [x.raw for x in marks] == before:
                return None
        return _torch_marks(generator, at)


def _torch_marks(generator: Any, at: int) -> tuple[Any, Any]:
    """Seed, position and the first 16 words; what is behind the words."""
    begin, end = generator._cdata + at - _TORCH_HEAD, generator._cdata + at + 4 * _WORDS
    return _memory(begin, _TORCH_HEAD + 64), _memory(end, 32)


class _Twister(_Copy):
    """The words of a Mersenne Twister, which are copied only where they have moved since they were last.

    A draw moves the position, and the one after the last word renews all of them: so position and the words beside it,
    480 random bits and more, tell whether the copy still holds.
    """

    def __init__(self, front: int, take: Callable[[], bytes]) -> None:
        super().__init__(take)
        self.front = _memory(front, _FRONT)


def _find_python() -> _Twister | None:
    """Where Python's global generator keeps its position and words; None unless a probe's are found there."""
    probe = random.Random(1)
    if sys.implementation.name != "cpython" or random.Random.__basicsize__ < _HEAD + _BYTES:
        return None
    probe.random()
    *words, position = probe.getstate()[1]
    found = _memory(id(probe) + _HEAD, _BYTES).raw == struct.pack(f"=i{_WORDS}I", position, *words)
    at = id(random._inst) + _HEAD
    whole = _memory(at, _BYTES)
    return _Twister(at, lambda: whole.raw) if found else None


def _numpy_words(generator: Any) -> bytes:
    """The words and position of NumPy's generator, which locks itself meanwhile: no interrupt can leave it locked."""
    state = generator.get_state(legacy=False)["state"]
    return bytes(state["key"].tobytes() + struct.pack("=i", state["pos"]))


class _NumPy:
    """NumPy's global generator.

    Its words and their position are its bit generator's, at an address that NumPy tells. Whether it keeps the second of
    two normal numbers (a draw that moves no word), and which, lies in the generator itself, where a probe says.
    """

    def __init__(self) -> None:
        self.module: Any = None  # that has the generator, once it is imported
        self.seen: tuple[Any, Any] = None, None  # generator and bit generator, which `set_bit_generator` may change
        self.twister: _Twister | None = None  # where that is not known None
        self.normal: Any = None

    def set(self, state: Any) -> None:
        """Set a state that `_read` gave."""
        numpy: Any = sys.modules["numpy"]
        if isinstance(state, tuple):
            words = numpy.frombuffer(state[0], numpy.uint32, _WORDS)
            (position,) = struct.unpack_from("=i", state[0], 4 * _WORDS)
            numpy.random.set_state(("MT19937", words, position, *struct.unpack("=ixxxxd", state[1])))
        else:
            numpy.random.set_state(state.state)

    def look(self, generator: Any, bits: Any) -> None:
        """Find the memory of these."""
        self.seen, self.twister = (generator, bits), None
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
                address = bits.ctypes.state_address
                self.normal = _memory(id(generator) + _HEAD + at, 16)
                self.twister = _Twister(address + _BYTES - _FRONT, partial(_numpy_words, generator))  # position last


class _Full:
    """A state as `get_state` gives it, equal to no other: it is always set."""

    def __init__(self, state: Any) -> None:
        self.state = state


_python, _numpy, _torch = _find_python(), _NumPy(), _Torch()
