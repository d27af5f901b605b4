"""What a measurement must leave as it was: mode, buffers, gradients, random generators, and the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fenland.diagnostics.remembered import Attributes, Weights
from fenland.step.guards.beginnings import ForwardWatch
from fenland.step.guards.generators import set_states, states_of
from fenland.step.guards.snapshots import Guard

MODES = ("eval", "train", "keep")


class PreserveState:
    """A context in which a model may run as often as a measurement needs; on exit all is as on entry.

    Covers the training flag of each module, every buffer, each `.grad` and `requires_grad`, every weight, what modules
    hold as plain attributes (numbers, words, tensors, tuples, and what lists, dicts and queues have in them), and the
    random generators: torch's of the CPU and of the parameters' devices, Python's, NumPy's, those that modules hold,
    and `generators`. The hooks of a fenland optimizer on the model see nothing of what happens inside. There gradients
    are enabled, also under `torch.no_grad` and `torch.inference_mode`, every `.grad` is None, and embeddings give dense
    gradients. Holds one copy of the weights and buffers.

    Args:
        model: the module that will run.
        mode: "eval", "train", or "keep" (each module's own flag).
        generators: of the data, which start each pass alike too.
        weights: whether the weights are copied; not where a context around this one does so.
    """

    def __init__(self, model: nn.Module, mode: str, generators: Sequence[Any] = (), weights: bool = True) -> None:
        self.model = model
        self.mode = mode
        self._generators = generators
        self._copies_weights = weights
        self._guard = Guard(model, True, {p.device for p in model.parameters()})

    def __enter__(self) -> PreserveState:
        # Each part is undone on its own, also where a later one cannot be entered.
        with ExitStack() as undo:
            if torch.is_inference_mode_enabled():
                undo.enter_context(torch.inference_mode(False))
            undo.enter_context(torch.enable_grad())
            undo.enter_context(_uncached())
            self._weights = Weights(self.model) if self._copies_weights else None
            if self._weights is not None:
                undo.callback(self._weights.bring_back)
            for p in self.model.parameters():
                undo.callback(_give_back, p, p.grad, p.requires_grad)
            self._attributes = Attributes(self.model)
            undo.callback(self._attributes.bring_back)
            for watch in _watches(self.model):
                undo.callback(setattr, watch, "quiet", watch.quiet)
                watch.quiet = True
            self._then = self._guard.take()
            self._random = states_of((), self._generators)
            undo.callback(self._rewind)
            for p in self.model.parameters():
                p.grad = None
            self._set_mode()
            self._undo = undo.pop_all()
        return self

    def _set_mode(self) -> None:
        if self.mode != "keep":
            self.model.train(self.mode == "train")
        for module in self.model.modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                module.sparse = False

    def again(self) -> None:
        """As on entry, but for weights and modes: each pass over the data starts alike, with equal dropout masks."""
        self._attributes.bring_back(all_of_them=False)
        if self._weights is not None:
            self._weights.bring_back(all_of_them=False)
        self._rewind()

    def moved(self) -> bool:
        """Whether modules hold something else in their plain attributes than at the beginning of a pass."""
        return self._attributes.moved()

    def _rewind(self) -> None:
        self._guard.bring_back(self._then)
        set_states({whose: self._random[whose] for whose in self._generators}, {})

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def _give_back(p: Tensor, grad: Tensor | None, wanted: bool) -> None:
    p.requires_grad_(wanted)
    p.grad = grad


@contextmanager
def displaced(params: Sequence[Tensor], e: Iterable[Tensor]) -> Iterator[None]:
    """The weights at w + e inside the block, and at w, bit for bit, after it. Holds one copy of the weights."""
    saved = [p.detach().clone() for p in params]
    try:
        with torch.no_grad():
            for p, w, x in zip(params, saved, e, strict=True):
                p.copy_(w.to(x.dtype) + x)
        torch.clear_autocast_cache()
        yield
    finally:
        with torch.no_grad():
            for p, w in zip(params, saved, strict=True):
                p.copy_(w)
        torch.clear_autocast_cache()


@contextmanager
def _uncached() -> Iterator[None]:
    """What `torch.nn.utils.parametrize.cached` holds is of other weights, or has a graph that is used up."""
    enabled, held = parametrize._cache_enabled, dict(parametrize._cache)
    parametrize._cache_enabled = 0
    parametrize._cache.clear()
    try:
        yield
    finally:
        parametrize._cache_enabled = enabled
        parametrize._cache.update(held)


def _watches(model: nn.Module) -> list[ForwardWatch]:
    """What fenland's two-call optimizers have put on this model to see where a step begins."""
    found: dict[int, ForwardWatch] = {}
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            seen = getattr(hook, "watch", None)
            watch = seen() if callable(seen) else None
            if isinstance(watch, ForwardWatch):
                found[id(watch)] = watch
    return list(found.values())
