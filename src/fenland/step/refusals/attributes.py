"""State of modules that is no buffer: what a forward advances is found in one step, and named.

Attributes that are numbers, tensors, or lists, dictionaries, sets and deques of such; and parameters that no step of
ours moves. Containers are compared by length and at their ends, so that a long one costs no more than a short one.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from itertools import islice
from typing import Any

from torch import Tensor, nn

from fenland.algebra.shards import local
from fenland.step.guards.snapshots import CONTAINERS, OPT_IN

_FEW = 16  # elements of a tensor that is a pointer or a counter; of a container at each end
_TORCH_S_OWN = frozenset(vars(nn.Module()))  # its lists of hooks, parameters and buffers
_LAST = 2  # passes after which the last look is taken
Seen = dict[tuple[nn.Module, str], Any]  # by module and attribute


class AdvancedWarning:
    """Compares, in one step, state of modules that is no buffer: attributes, and parameters that no step of ours moves.

    Args:
        model: their outermost module.
        own: the optimizer's parameters, which move by its steps alone.
    """

    def __init__(self, model: nn.Module, own: Iterable[Tensor]) -> None:
        self.model, self._own = model, {id(p) for p in own}
        self._states = [self._look(alone=False)]  # before the step, after pass 1, after the last pass

    def note(self, passes: int, alone: bool = False) -> None:
        """Look at the model after so many passes of the step."""
        self._states = [*self._states[: min(passes, _LAST)], self._look(alone)]

    def _look(self, alone: bool) -> Seen:
        """Numbers, tensors and containers that sit on modules as attributes, now.

        And parameters that no step of ours moves: frozen ones, such as a momentum encoder's, and where no other
        optimizer's two calls can be under way (`alone`) those of others.
        """
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
            if isinstance(value, (int, float, Tensor, *CONTAINERS)) and not isinstance(value, bool)
            if name not in _TORCH_S_OWN and name not in getattr(module, OPT_IN, ())
        }

    def compare(self, look: bool) -> AdvancedWarning | None:
        """Warn once of what each pass advanced, after a last look where one is missing; None once that is done."""
        if look:
            self.note(_LAST)
        if len(self._states) <= _LAST:
            return self
        before, first, last = self._states
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
        return None


def _beginning(p: Tensor) -> str:
    """The first few numbers of a parameter: whoever updates it changes them, and `p.data` has no version of its own."""
    x = local(p.detach())
    while x.dim() > 1 and x.numel():
        x = x[0]
    return "" if x.is_meta else str(x.reshape(-1)[:_FEW].tolist())  # as text, so that NaN equals itself


class Held:
    """A container as it is now: who it is, how long, and its elements at both ends.

    Elements count as numbers or words, or as tensors, by who they are and how often they were written; others do not.
    """

    def __init__(self, whole: Any) -> None:
        self.whole, self.length = id(whole), len(whole)  # by number: nobody keeps what it holds
        ends: list[Any] = []
        if isinstance(whole, dict):
            ends = [*islice(whole.items(), _FEW), *islice(reversed(whole.items()), _FEW)]
        elif not isinstance(whole, set):  # a set has no ends: its length says enough
            ends = [*islice(whole, _FEW), *islice(reversed(whole), _FEW)]
        flat = [x for end in ends for x in (end if isinstance(end, tuple) else (end,))]
        self.words = [x for x in flat if isinstance(x, (int, float, str))]
        self.tensors = [(weakref.ref(x), _version(x)) for x in flat if isinstance(x, Tensor)]

    def advanced(self, first: Held, last: Held) -> bool:
        """Whether both passes have moved it on; one that is filled anew by each pass is not moved on."""
        if not self.whole == first.whole == last.whole:
            return False
        a, b, c = self.length, first.length, last.length
        if a < b < c or a > b > c or (self.words != first.words and first.words != last.words):
            return True
        before, after = self.versions(), first.versions()
        if any(after.get(ref, x) < x and before.get(ref, -1) < after[ref] for ref, x in last.versions().items()):
            return True  # written to in both passes, or made in the first of them
        places = {id(ref): i for i, (ref, _) in enumerate(first.tensors)}
        moved = any(places.get(id(ref), i) != i for i, (ref, _) in enumerate(last.tensors))
        return moved and a == b == c and before != after  # a full queue: what stays has another place

    def versions(self) -> dict[int, int]:
        """How often each tensor was written, by the number of its reference, which is the tensor's own as it lives."""
        return {id(ref): version for ref, version in self.tensors}


def _seen(value: Any) -> Any:
    """A number as it is, a few whole numbers as a list, any other tensor as who it is and how often it was written."""
    if isinstance(value, CONTAINERS):
        return Held(value)
    if not isinstance(value, Tensor):
        return value
    pointer = value.is_cpu and not value.is_floating_point() and not value.is_complex() and value.numel() <= _FEW
    return value.tolist() if pointer else (id(value), _version(value))


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _advanced(before: Any, first: Any, last: Any) -> bool:
    if isinstance(last, Held):
        return isinstance(before, Held) and isinstance(first, Held) and before.advanced(first, last)
    if isinstance(last, tuple):  # a tensor: the same object, written to in both passes
        same = isinstance(before, tuple) and isinstance(first, tuple) and before[0] == first[0] == last[0]
        return same and before[1] < first[1] < last[1]
    return before is not None and first is not None and before != first and first != last
