"""What a measurement must leave as it was: mode, buffers, gradients, random generators, and the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fenland.step.guards.beginnings import ForwardWatch
from fenland.step.guards.snapshots import Guard

MODES = ("eval", "train", "keep")
# What a forward may count or remember in plain attributes of a module.
_KEPT = (bool, int, float, complex, str, type(None), Tensor)


class PreserveState:
    """A context in which a model may run as often as a measurement needs; on exit all is as on entry.

    Covers the training flag of each module, every buffer, each `.grad` and `requires_grad`, numbers, words and tensors
    that modules hold as plain attributes (which tensor, not its content), and the random generators: torch's of the
    CPU and of the parameters' devices, Python's, NumPy's, and those that modules hold. The hooks of a fenland optimizer
    on the model see nothing of what happens inside. There gradients are enabled, also under `torch.no_grad` and
    `torch.inference_mode`, every `.grad` is None, and embeddings give dense gradients.

    Args:
        model: the module that will run.
        mode: "eval", "train", or "keep" (each module's own flag).
    """

    def __init__(self, model: nn.Module, mode: str) -> None:
        self.model = model
        self.mode = mode
        self._guard = Guard(model, True, {p.device for p in model.parameters()})

    def __enter__(self) -> PreserveState:
        modules = list(self.model.modules())
        self._grad_mode = ExitStack()
        if torch.is_inference_mode_enabled():
            self._grad_mode.enter_context(torch.inference_mode(False))
        self._grad_mode.enter_context(torch.enable_grad())
        self._grads = [(p, p.grad, p.requires_grad) for p in self.model.parameters()]
        self._attributes = [(module, _plain(module)) for module in modules]
        self._watches = [(watch, watch.quiet) for watch in _watches(self.model)]
        self._then = self._guard.take()
        for watch, _ in self._watches:
            watch.quiet = True
        for p, _, _ in self._grads:
            p.grad = None
        if self.mode != "keep":
            self.model.train(self.mode == "train")
        for module in modules:
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                module.sparse = False
        return self

    def again(self) -> None:
        """Buffers and generators as on entry: each pass over the data starts alike, with equal dropout masks."""
        self._guard.bring_back(self._then)

    def __exit__(self, *_: object) -> None:
        self.again()
        for module, values in self._attributes:
            _restore(module, values)
        for p, grad, wanted in self._grads:
            p.requires_grad_(wanted)
            p.grad = grad
        for watch, quiet in self._watches:
            watch.quiet = quiet
        self._grad_mode.close()


def _plain(module: nn.Module) -> dict[str, Any]:
    """The numbers, words and tensors that a module holds as plain attributes, its training flag among them."""
    return {name: value for name, value in vars(module).items() if isinstance(value, _KEPT)}


def _restore(module: nn.Module, values: dict[str, Any]) -> None:
    """Plain attributes as they were; those that came later are gone again."""
    for name in _plain(module).keys() - values.keys():
        del module.__dict__[name]
    module.__dict__.update(values)


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
