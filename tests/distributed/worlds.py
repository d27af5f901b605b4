"""What the distributed tests share: variants by name (functions cannot travel to other processes), models, data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fenland
from fenland.rules import Combine, Source
from harness import BASES, VARIANTS


@dataclass(frozen=True)
class Blend(Combine):
    """d = -0.3 g + 1.3 h: needs g after the ascent, as GSAM, GNP and WSAM do."""

    def __call__(self, g, h):
        return g * -0.3 + h * 1.3


@dataclass(frozen=True)
class Slow(Source):
    """A kept vector between steps, as VaSSO and Friendly SAM have: m <- 0.9 m + 0.1 g, a = m."""

    keeps: ClassVar[tuple[str, ...]] = ("m",)

    def vector(self, g, s):
        return s.put("m", s.get("m", g * 0.0) * 0.9 + g * 0.1)


def _one() -> float:
    return 1.0


REQUIRED: dict[str, dict[str, Any]] = {"AESAM": {"total_steps": 50}, "DNSAM": {"full_norm": _one}}


def _variants() -> dict[str, Callable[..., fenland.SharpnessAware]]:
    rows = {p.name: p.build for p in fenland.PRESETS.values()} | {v.name: v.build for v in VARIANTS}
    rows["blend"] = lambda base, **o: fenland.SharpnessAware(base, combine=Blend(), **o)
    rows["slow"] = lambda base, **o: fenland.SharpnessAware(base, source=Slow(), **o)
    return rows


def rules(name: str) -> Any:
    """The rules of a variant."""
    model = mlp()
    return build(name, BASES["sgd_momentum"](model.parameters()), model=model).rules


def whole_only(name: str) -> bool:
    """Whether the variant refuses shards by name: a spectrum, a quantile or one random vector needs whole tensors."""
    return name in ("RandomSAM", "SparseSAM", "ZSharp", "SpectralSAM", "GCSAM")


def per_sample(name: str) -> bool:
    """Whether the variant chooses samples, so that two halves of a batch are not the batch."""
    return bool(rules(name).method.per_sample)


def build(name: str, base: torch.optim.Optimizer, **options: Any) -> fenland.SharpnessAware:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="method = BaseMomentum")  # some tests want a base without momentum
        return _variants()[name](base, **REQUIRED.get(name, {}), **options)


EVERY = list(_variants())  # the whole table
NAMES = [*(v.name for v in VARIANTS), "blend", "slow"]  # one of each kind
STEPS = 5


def mlp(dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.LayerNorm(3)).to(dtype)


def data(dtype: torch.dtype = torch.float64, steps: int = STEPS, batch: int = 8) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return torch.randn(steps, batch, 6).to(dtype), torch.randint(3, (steps, batch))


def share(x: Tensor, rank: int, world: int = 2) -> Tensor:
    """A rank's part of one batch."""
    n = len(x) // world
    return x[rank * n : (rank + 1) * n]


def closure(opt: Any, model: nn.Module, x: Tensor, y: Tensor, scaler: Any = None) -> Callable[[], Tensor]:
    """The closure of a training loop, for every kind of variant."""
    reduction = "none" if opt.rules.method.per_sample else "mean"

    def run() -> Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(model(x).float() if x.dtype == torch.bfloat16 else model(x), y, reduction=reduction)
        if reduction == "mean":
            (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return run


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def one_process(name: str, base: str, *, steps: int = STEPS, micro: int = 0, model: Any = None, **options: Any) -> list:
    """The weights after some steps on the joint batches, or on `micro` micro-batches of each (m-SAM)."""
    torch.manual_seed(0)
    model = model or mlp()
    opt = build(name, BASES[base](model.parameters()), model=model, **options)
    xs, ys = data(steps=steps)
    for x, y in zip(xs, ys, strict=True):
        if micro:
            opt.step([closure(opt, model, share(x, i, micro), share(y, i, micro)) for i in range(micro)])
        else:
            opt.step(closure(opt, model, x, y))
    return weights(model)


def ddp_setup(name: str, base: str, *, model: Any = None, ddp: dict | None = None, **options: Any) -> tuple[Any, Any]:
    """(DDP module, optimizer) of one rank."""
    wrapped = DistributedDataParallel(model or mlp(), **(ddp or {}))
    return wrapped, build(name, BASES[base](wrapped.parameters()), model=wrapped, **options)


def close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
