"""What a measurement must leave as it was: mode, buffers, gradients, random generators, and the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fenland.step.guards import ForwardWatch, Guard

MODES = ("eval", "train", "keep")


class Untouched:
    """A context in which a model may run as often as a measurement needs; on exit all is as on entry.

    Covers the training flag of each module, every buffer, each `.grad`, the CPU's generator and those of the
    parameters' devices. The hooks of a fenland optimizer on the model see nothing of what happens inside.

    Args:
        model: the module that will run.
        mode: "eval", "train", or "keep" (each module's own flag).
    """

    def __init__(self, model: nn.Module, mode: str) -> None:
        self.model = model
        self.mode = mode
        self._guard = Guard(model, True, {p.device for p in model.parameters()})

    def __enter__(self) -> Untouched:
        self._flags = [(module, module.training) for module in self.model.modules()]
        self._grads = [(p, p.grad) for p in self.model.parameters()]
        self._watches = [(watch, watch.armed) for watch in _watches(self.model)]
        self._then = self._guard.take()
        for watch, _ in self._watches:
            watch.armed = False
        if self.mode != "keep":
            self.model.train(self.mode == "train")
        return self

    def again(self) -> None:
        """Buffers and generators as on entry: each pass over the data starts alike, with equal dropout masks."""
        self._guard.bring_back(self._then)

    def __exit__(self, *_: object) -> None:
        self.again()
        for module, flag in self._flags:
            module.training = flag
        for p, grad in self._grads:
            p.grad = grad
        for watch, armed in self._watches:
            watch.armed = armed


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
