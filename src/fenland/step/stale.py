"""Closures that do not zero the gradients: they would add each pass to what was there before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fenland.algebra.shards import is_dtensor


class StaleGradients:
    """Watches one gradient that is there before pass 1: backward must not be the next that writes to it.

    A closure that zeroes in place writes twice (zeros, then the gradient), one that sets None makes a new tensor. So
    one write since the step began, on numbers that were not zero, is a backward onto an old gradient.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self._found = self._seen = False
        self._handle: Any = None
        self._by_hand: Any = None
        param = next((p for group in groups for p in group["params"] if _watchable(p)), None)
        if param is None:
            return
        old: Any = param.grad
        version = old._version
        content = old.detach().reshape(-1)[:64].clone()

        def accumulated(p: Tensor) -> None:
            self._handle.remove()
            self._seen = True
            if p.grad is old and old._version == version + 1:
                self._found = bool(content.any())

        def by_hand() -> None:
            if not self._seen and param.grad is old and old._version == version + 1:
                self._found = bool(content.any())

        self._by_hand = by_hand

        self._handle = param.register_post_accumulate_grad_hook(accumulated)

    def refuse(self) -> None:
        """Raise where pass 1 was added to an old gradient."""
        if self._handle is not None:
            self._handle.remove()
            self._by_hand()
            self._by_hand = None  # it holds the gradient
        if self._found:
            raise RuntimeError(
                "the closure does not zero the gradients, so pass 1 was added to what p.grad held before the step. "
                "A closure of fenland begins with optimizer.zero_grad() and runs its own forward and backward, at w "
                "and again at w + e; if you run backward before the step, as other SAM code asks you to, call "
                "optimizer.ascend() after it and optimizer.descend() after the second backward instead"
            )


def _watchable(p: Tensor) -> bool:
    grad = p.grad
    return grad is not None and p.requires_grad and p.is_leaf and not is_dtensor(p) and grad.layout == torch.strided
