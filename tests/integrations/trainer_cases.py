"""What the trainers' tests share: a network that betrays every mistake, micro-batches, and the plain fenland loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

import fenland

SIZE, CLASSES, BATCH = 6, 3, 8
BATCHES = 6


class Forwards:
    """Counts from outside the module: fenland warns of its numbers and lists that both passes advance."""

    def __init__(self) -> None:
        self.seen: list[bool] = []


class Net(nn.Module):
    """BatchNorm, dropout, and a count of the forward passes that had gradients."""

    def __init__(self, dropout: float = 0.3, norm: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(SIZE, 12), nn.BatchNorm1d(12) if norm else nn.Tanh(), nn.Dropout(dropout), nn.Linear(12, CLASSES)
        )
        self.tally = Forwards()

    @property
    def forwards(self) -> int:
        return sum(self.tally.seen)

    def forward(self, x: Tensor) -> Tensor:
        self.tally.seen.append(torch.is_grad_enabled() and self.training)
        return self.layers(x)


def net(**options: Any) -> Net:
    torch.manual_seed(3)
    return Net(**options)


def batches(n: int = BATCHES) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(5)
    x, y = torch.randn(n * BATCH, SIZE, generator=g), torch.randint(0, CLASSES, (n * BATCH,), generator=g)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def sgd(model: nn.Module, lr: float = 0.3, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **options)


def ssam(model: nn.Module, base: torch.optim.Optimizer | None = None, **options: Any) -> fenland.SharpnessAware:
    return fenland.SSAM(base or sgd(model), rho=0.2, model=model, **options)


def loss_fn(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), y)


def seed(micro: int) -> None:
    """Each micro-batch has its own dropout masks, the same in both passes."""
    torch.manual_seed(100 + micro)


def plain_loop(
    model: nn.Module,
    opt: fenland.SharpnessAware,
    *,
    accumulate: int = 1,
    epochs: int = 1,
    micro: bool = False,
    scaler: Any = None,
    autocast: torch.dtype | None = None,
    data: Iterable[tuple[Tensor, Tensor]] | None = None,
    seeds: int = 0,
) -> list[float]:
    """The loop that users write by hand; returns the loss of each micro-batch at w."""
    data = list(data or batches())
    logged: list[float] = []
    for epoch in range(epochs):
        for first in range(0, len(data), accumulate):
            rows = range(first, min(first + accumulate, len(data)))

            def run(i: int, weight: float, epoch: int = epoch) -> Tensor:
                seed(seeds + epoch * len(data) + i)
                with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                    loss = loss_fn(model, *data[i])
                (loss if scaler is None else scaler.scale(loss)).mul(weight).backward()
                return loss.detach()

            def whole(rows: range = rows, run: Callable[..., Tensor] = run) -> list[Tensor]:
                opt.zero_grad()
                losses = [run(i, 1 / accumulate) for i in rows]
                return [torch.stack(losses).sum() / accumulate, *losses]

            def one(i: int, run: Callable[..., Tensor] = run) -> Tensor:
                opt.zero_grad()
                return run(i, 1.0)

            if micro:
                logged += map(float, opt.step([lambda i=i, one=one: one(i) for i in rows], scaler=scaler))
            else:
                logged += map(float, opt.step(whole, scaler=scaler)[1:])
            if scaler is not None:
                scaler.update()
    return logged


def assert_close(got: nn.Module, want: nn.Module, tolerance: float = 1e-6) -> None:
    """Weights and buffers."""
    theirs = want.state_dict()
    assert got.state_dict().keys() == theirs.keys()
    for name, value in got.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def moved(model: nn.Module) -> float:
    """How far training has come from the start, so that equality is not that of two idle loops."""
    start = net(dropout=0.3).state_dict()
    return max(float((v - start[k]).abs().max()) for k, v in model.state_dict().items() if k.endswith("weight"))
