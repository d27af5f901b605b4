"""A small network under training, with all that a step may not change within reach."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCHES, SIZE, INPUTS, HIDDEN, CLASSES = 4, 8, 6, 8, 3
Build = Callable[..., Any]  # base, rho=, options -> SharpnessAware


class Broken(AssertionError):
    """A point of the contract does not hold."""


class DoesNotApply(Exception):
    """A point of the contract says nothing of this rule; the message says why."""


@dataclass
class Trial:
    """A model, its batches and an optimizer.

    Attributes:
        model: Linear, BatchNorm, Tanh, Dropout and Linear, or without the two that are noisy.
        x: inputs (batches, samples, features).
        y: classes (batches, samples).
        opt: the optimizer, or a plain base.
        scale: the loss that backward sees, from the loss.
        fault: called with the number of the pass (from 1) and its loss; returns the loss.
        passes: forward passes of this step.
        batch: number of the batch.
        seen: called after each backward.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    opt: Any = None
    scale: Callable[[Tensor], Tensor] | None = None
    fault: Callable[[int, Tensor], Tensor] | None = None
    seen: Callable[[], None] | None = None
    passes: int = 0
    batch: int = 0

    @property
    def method(self) -> Any:
        """The program of its steps."""
        return self.opt.rules.method

    @property
    def per_sample(self) -> bool:
        """Whether the closure leaves backward to the engine."""
        return hasattr(self.opt, "rules") and bool(self.method.per_sample)

    def start(self, t: int) -> None:
        """Choose batch t; the next pass is the first."""
        self.batch, self.passes = t % BATCHES, 0

    def loss(self, part: slice = slice(None)) -> Tensor:
        """The loss of the batch, or the losses of its samples."""
        self.passes += 1
        out = self.model(self.x[self.batch][part])
        loss = F.cross_entropy(out, self.y[self.batch][part], reduction="none" if self.per_sample else "mean")
        return loss if self.fault is None else self.fault(self.passes, loss)

    def closure(self, parts: int = 1) -> Tensor:
        """Zero, forward and backward: over the batch at once, or over equal parts of it."""
        self.opt.zero_grad()
        if self.per_sample:
            return self.loss()
        total = torch.zeros(())
        for k in range(parts):
            loss = self.loss(slice(k * SIZE // parts, (k + 1) * SIZE // parts)) / parts
            (loss if self.scale is None else self.scale(loss)).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        if self.seen is not None:
            self.seen()
        return total

    def step(self, t: int = 0, **options: Any) -> None:
        """One step on batch t."""
        self.start(t)
        self.opt.step(self.closure, **options)

    def run(self, steps: int, start: int = 0) -> Trial:
        """Some steps, a batch each."""
        for t in range(start, start + steps):
            self.step(t)
        return self

    def weights(self) -> list[Tensor]:
        """Copies of the weights."""
        return [p.detach().clone() for p in self.model.parameters()]

    def everything(self) -> dict[str, Any]:
        """Copies of all that a failed step must leave as it was."""
        state = copy.deepcopy(self.opt.state_dict())
        return {"weights": self.weights(), "state": state, "buffers": buffers(self.model), "rng": torch.get_rng_state()}

    def one_forward(self, t: int) -> tuple[dict[str, Tensor], Tensor]:
        """Buffers and random numbers as after one forward at w, which nobody sees."""
        before, other = torch.get_rng_state(), copy.deepcopy(self.model)
        other(self.x[t % BATCHES])
        found = buffers(other), torch.get_rng_state()
        torch.set_rng_state(before)
        return found


@dataclass
class Case:
    """What is examined: an optimizer from a base, again and again.

    Attributes:
        build: base, rho= and options -> optimizer.
        rho: the radius.
        options: of every build.
    """

    build: Build
    rho: float = 0.1
    options: dict[str, Any] = field(default_factory=dict)

    def trial(
        self, *, noisy: bool = True, plain: bool = False, dtype: torch.dtype = torch.float64, **options: Any
    ) -> Trial:
        """A fresh trial, alike each time; `lr`, `momentum` and `groups` go to the base, the rest to the optimizer."""
        trial = _network(noisy, dtype)
        lr, momentum = options.pop("lr", 0.1), options.pop("momentum", 0.9)
        params: Any = list(trial.model.parameters())
        if "groups" in options:
            each = options.pop("groups")
            params = [{"params": params[k :: len(each)], **group} for k, group in enumerate(each)]
        base = torch.optim.SGD(params, lr=lr, momentum=momentum)
        trial.opt = base
        if not plain:
            trial.opt = self.build(base, **{"rho": self.rho, "model": trial.model, **self.options, **options})
        torch.manual_seed(7)
        return trial


def _network(noisy: bool, dtype: torch.dtype) -> Trial:
    torch.manual_seed(0)
    between = [nn.BatchNorm1d(HIDDEN), nn.Tanh(), nn.Dropout(0.3)] if noisy else [nn.LayerNorm(HIDDEN), nn.Tanh()]
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), *between, nn.Linear(HIDDEN, CLASSES)).to(dtype)
    x = torch.randn(BATCHES, SIZE, INPUTS, dtype=torch.float64).to(dtype)
    return Trial(model, x, torch.randint(CLASSES, (BATCHES, SIZE)))


def buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of a model's buffers."""
    return {name: b.detach().clone() for name, b in model.named_buffers()}


def same(got: Any, want: Any, what: str) -> None:
    """Raise `Broken` unless both are equal bit for bit, through dictionaries and lists."""
    if isinstance(want, Tensor):
        if not torch.equal(got, want):
            raise Broken(f"{what}: differs by up to {_difference(got, want)}")
    elif isinstance(want, dict):
        if got.keys() != want.keys():
            raise Broken(f"{what}: has {sorted(map(str, got))}, not {sorted(map(str, want))}")
        for key in want:
            same(got[key], want[key], f"{what}[{key!r}]")
    elif isinstance(want, (list, tuple)):
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            same(a, b, f"{what}[{i}]")
    elif got != want:
        raise Broken(f"{what}: is {got!r}, not {want!r}")


def near(got: list[Tensor], want: list[Tensor], rtol: float, atol: float, what: str) -> None:
    """Raise `Broken` unless both are equal up to rounding."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if not torch.allclose(a, b, rtol=rtol, atol=atol):
            raise Broken(f"{what}[{i}]: differs by up to {_difference(a, b)}")


def _difference(a: Tensor, b: Tensor) -> str:
    return f"{(a.double() - b.double()).abs().max().item():.3g}" if a.shape == b.shape else f"shape {tuple(a.shape)}"
