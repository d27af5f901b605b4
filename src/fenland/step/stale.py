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
        self._param: Any = next((p for group in groups for p in group["params"] if _watchable(p)), None)
        if self._param is None:
            return
        self._old: Any = self._param.grad
        self._version = self._old._version
        self._content = self._old.detach().reshape(-1)[:64].clone()
        self._handle = self._param.register_post_accumulate_grad_hook(self._accumulated)

    def _accumulated(self, p: Tensor) -> None:
        """Backward has just added to the watched gradient, or made a new one."""
        if not self._seen:
            self._seen, self._found = True, self._written_once()

    def _written_once(self) -> bool:
        once = self._param.grad is self._old and self._old._version == self._version + 1
        return once and bool(self._content.any())

    def close(self) -> None:
        """Let go of the parameter and its gradient, whatever became of the pass."""
        if self._param is not None:
            self._handle.remove()
        self._param = self._old = None

    def refuse(self) -> None:
        """Raise where pass 1 was added to an old gradient."""
        if self._param is not None and not self._seen:  # a closure that writes p.grad by hand
            self._found = self._written_once()
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
