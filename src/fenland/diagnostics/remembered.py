"""What a forward may change beside buffers and generators: plain attributes of modules, and the weights themselves."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fenland.step.guards.snapshots import put_back

# What a forward may count or remember in plain attributes of a module.
_PLAIN = (bool, int, float, complex, str, type(None), Tensor, tuple)
_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)
_INTERNAL = frozenset(vars(nn.Module())) - {"training"}
_MEASURERS = ("training", "momentum", "sparse")  # what a measurement itself sets, in the midst of its passes
_GONE = object()


class Attributes:
    """Numbers, words, tensors, tuples and containers that modules hold as plain attributes, with their content.

    Of containers the elements are kept, not what these hold in turn; of tensors the numbers, unless they have a graph
    or are a weight's.

    Args:
        model: whose modules.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = {_storage(p) for p in model.parameters() if not nn.parameter.is_lazy(p)}
        self._kept = [(module, dict(_remembered(module))) for module in model.modules()]
        self._containers = [(x, copy.copy(x)) for _, values in self._kept for x in values.values() if _holds(x)]
        tensors = [x for _, values in self._kept for x in values.values() if isinstance(x, Tensor)]
        self._tensors = [(x, x._version, x.clone()) for x in tensors if _own(x, weights)]

    def moved(self) -> bool:
        """Whether something has changed, but for flags that a measurement sets itself."""
        return (
            any(
                vars(module).get(name, _GONE) is not value and name not in _MEASURERS
                for module, values in self._kept
                for name, value in {**dict.fromkeys(dict(_remembered(module)), _GONE), **values}.items()
            )
            or any(not _alike(held, elements) for held, elements in self._containers)
            or any(x._version != version for x, version, _ in self._tensors)
        )

    def bring_back(self, all_of_them: bool = True) -> None:
        """Make them as they were; those that came later are gone again.

        Args:
            all_of_them: also the flags that a measurement sets itself.
        """
        for module, values in self._kept:
            for name in [name for name, _ in _remembered(module) if name not in values]:
                del module.__dict__[name]
            for name, value in values.items():
                if (all_of_them or name not in _MEASURERS) and module.__dict__.get(name, _GONE) is not value:
                    module.__dict__[name] = value
        for held, elements in self._containers:
            if not _alike(held, elements):
                put_back(held, elements)
        for x, version, numbers in self._tensors:
            if x._version != version:
                with torch.no_grad():
                    x.resize_(numbers.shape).copy_(numbers)


def _remembered(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if name not in _INTERNAL and (isinstance(value, _PLAIN) or _holds(value)):
            yield name, value


def _holds(value: Any) -> bool:
    return type(value) in _CONTAINERS


def _alike(one: Any, two: Any) -> bool:
    """Whether two containers hold the very same objects."""
    return len(one) == len(two) and all(a is b for a, b in zip(_elements(one), _elements(two), strict=True))


def _elements(held: Any) -> Iterator[Any]:
    yield from held
    if isinstance(held, dict):
        yield from held.values()


def _own(x: Tensor, weights: set[int]) -> bool:
    """Whether a tensor's numbers are its own, and can be copied back."""
    if nn.parameter.is_lazy(x) or x.layout != torch.strided or x.requires_grad or x.is_inference():
        return False
    return not x._is_view() and x.device.type != "meta" and _storage(x) not in weights


def _storage(x: Tensor) -> int:
    try:
        return x.untyped_storage().data_ptr() or -1
    except (RuntimeError, NotImplementedError):  # it has none: sparse, or a subclass around others
        return -1


class Weights:
    """Copies of a model's parameters: a forward may change them in place (`max_norm`, a momentum encoder, an adapter).

    Frozen parameters of an accelerator that take more memory than the trained ones wait in the host's.

    Args:
        model: whose parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        every = [p for p in model.parameters() if p.requires_grad or type(p) in (nn.Parameter, Tensor)]
        every = [p for p in every if not nn.parameter.is_lazy(p) and p.device.type != "meta"]
        frozen = [p for p in every if not p.requires_grad]
        large = 2 * sum(p.nbytes for p in frozen) > sum(p.nbytes for p in every)
        away = {id(p) for p in frozen if large and p.device.type != "cpu"}
        self._kept = [(p, p.detach().to("cpu") if id(p) in away else p.detach().clone()) for p in every]
        self._frozen = [(p, w) for p, w in self._kept if not p.requires_grad and id(p) not in away]

    def bring_back(self, all_of_them: bool = True) -> None:
        """Make them as they were.

        Args:
            all_of_them: also those that a measurement itself moves, and those that wait in the host's memory.
        """
        changed = False
        for p, w in self._kept if all_of_them else self._frozen:
            if p.shape == w.shape and not torch.equal(p, w.to(p.device)):
                with torch.no_grad():
                    p.copy_(w)
                changed = True
        if changed:
            torch.clear_autocast_cache()
