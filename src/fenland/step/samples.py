"""The passes of one step: closures that run backward themselves, and per-sample ones that leave it to the engine."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from fenland.rules import Source
from fenland.step.closures import Closure, evaluate


class Passes:
    """Runs a closure at w (`first`) and at w + e (`second`).

    With a source that chooses samples (`per_sample`), the closure zeroes the gradients, runs the forward pass and
    returns the losses of its samples, shape (B,), with their graph; backward runs here, on the chosen ones. A closure
    that takes one argument is given the indices of the samples that pass 2 needs (or None for all), so that it need not
    compute the others.
    """

    def __init__(self, closure: Closure, source: Source, scaler: Any) -> None:
        self.closure, self.source, self.scaler = closure, source, scaler
        self.losses: Tensor | None = None
        self.takes_keep = source.per_sample and bool(inspect.signature(closure).parameters)

    def first(self) -> Any:
        """Pass 1; returns the closure's value, or the mean loss where it gives one a sample."""
        if not self.source.per_sample:
            return evaluate(self.closure)
        losses = self._losses(None)
        self.losses = losses.detach()
        self._backward(losses, self.source.first(self.losses))
        return self.losses.mean()

    def second(self) -> Any:
        """Pass 2, at w + e."""
        if not self.source.per_sample or self.losses is None:
            return evaluate(self.closure)
        ahead = self.source.ahead(self.losses)
        losses = self._losses(ahead)
        if ahead is not None:
            self._backward(losses, None if self.takes_keep else ahead)
        else:
            self._backward(losses, self.source.second(self.losses, losses.detach()))
        return losses.detach().mean()

    def _losses(self, keep: Tensor | None) -> Tensor:
        with torch.enable_grad():
            losses = self.closure(keep) if self.takes_keep else self.closure()  # type: ignore[call-arg]
        if not isinstance(losses, Tensor) or losses.dim() != 1 or not losses.requires_grad:
            got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"{type(self.source).__name__} chooses samples, so the closure must return their losses, shape (B,), "
                f"with their graph and without backward (reduction='none'); it returned {got}"
            )
        return losses

    def _backward(self, losses: Tensor, chosen: Tensor | None) -> None:
        with torch.enable_grad():
            loss = (losses if chosen is None else losses[chosen]).mean()
            if self.scaler is not None:
                loss = self.scaler.scale(loss)
            torch.autograd.backward(loss)
