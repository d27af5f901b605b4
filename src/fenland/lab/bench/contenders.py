"""Who takes part: the floor's passes, plain bases, every preset, and the peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fenland.lab.bench.peers import PIP, BareMove, TextbookSAM, from_pip
from fenland.optimizer import SharpnessAware
from fenland.presets import PRESETS, SAM
from fenland.rules import (
    L2,
    Clipped,
    FullNorm,
    InfNorm,
    LossBudget,
    Penalty,
    Renormalize,
    Reuse,
    Unnormalized,
    WeightedDecoupled,
)

MakeBase: TypeAlias = Callable[[list[Tensor]], torch.optim.Optimizer]
_SGD: dict[str, Any] = {"lr": 1e-6, "momentum": 0.9}
_ADAMW: dict[str, Any] = {"lr": 1e-8}
_KINDS: dict[str, dict[str, Any]] = {"": {"foreach": False}, "-foreach": {"foreach": True}, "-fused": {"fused": True}}
BASES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    name + kind: (cls, {**options, **how})
    for name, cls, options in (("sgd", torch.optim.SGD, _SGD), ("adamw", torch.optim.AdamW, _ADAMW))
    for kind, how in _KINDS.items()
}
STATE = {"sgd": 1, "adamw": 2}  # parameter-sized buffers of the base

# Methods that evaluate something else than gradients of one batch cannot be fed ready-made gradients.
UNFIT = {
    "ESAM": "chooses samples",
    "KSAM": "chooses samples",
    "DNSAM": "asks for another gradient norm",
    "SAMON": "needs a model's norm layers",
}
_OWN: dict[str, dict[str, Any]] = {"SAM (copy)": {"perturb": "inplace"}, "SAM (no RNG replay)": {"replay_rng": False}}
_OPTIONS: dict[str, dict[str, Any]] = {"AESAM": {"total_steps": 1000}}
# Singular values of every matrix and geodesics take seconds on large sets.
_ONLY_SMALL = ("SpectralSAM", "XSAM", "RiemannianSAM")
SMALL = 1_000_000
# "cpu" counts this thread's own time only: for a machine that does other things, with one thread of torch.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
PERIOD = 10  # steps that one figure is the mean of, where not every step ascends


@dataclass
class Contender:
    """One way to step."""

    name: str  # as shown
    step: Callable[[Callable[[], Any]], Any]  # one step; it calls its argument whenever it needs fresh gradients
    period: int = 1  # steps that one measurement is the mean of
    # what its own floor is made of, by the name of the pass; empty: that of SAM
    passes: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # one measurement a round

    def round(self, gradients: Gradients) -> None:
        """Take one measurement: the time of its steps without that of making gradients."""
        gradients.spent = 0.0
        start = gradients.clock()
        for _ in range(self.period):
            self.step(gradients)
        self.seconds.append((gradients.clock() - start - gradients.spent) / self.period)


class Gradients:
    """Puts fresh gradients into the parameters, tensors that nobody else holds, and keeps the time that it takes."""

    def __init__(self, params: list[Tensor], seed: int = 0, clock: str = "wall") -> None:
        draw = torch.Generator().manual_seed(seed)
        self.params = params
        self.sources = [torch.randn(p.shape, generator=draw) * 1e-3 for p in params]
        self.clock = CLOCKS[clock]
        self.spent = 0.0
        self.turn = 0

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """New gradients, g and h in turn; the loss of a flat place."""
        start = self.clock()
        self.turn = 1 - self.turn
        for p in self.params:
            p.grad = None
        for p, g in zip(self.params, self.sources, strict=True):
            p.grad = g * 1.25 if self.turn else g.clone()
        loss = torch.ones(())
        self.spent += self.clock() - start
        return loss


def passes_of(opt: SharpnessAware, fused: bool) -> dict[str, int]:
    """The passes that a step of these choices cannot do without, over the parameters' bytes.

    Two norms (of g and h) and one a + s * b; <a, M a> instead of ||g|| on other balls; <g, h> and one more pass where d
    is combined of both, and another where w is corrected after the base's step; one pass for each vector that is kept;
    a scaling of h where the base does not take a factor.
    """
    rules, method = opt.rules, opt.rules.method
    reads = getattr(getattr(method, "combine", None), "reads", {"norms"} if isinstance(method, Renormalize) else set())
    own = {"norm": 2, "axpy": 1}
    if not isinstance(rules.ball, L2 | Unnormalized | Clipped | InfNorm | LossBudget | FullNorm):
        own |= {"norm": 1, "dot": 1}
    if "g" in reads or isinstance(method, Reuse | WeightedDecoupled):
        own["axpy"] += 1 + method.corrects
        own["dot"] = own.get("dot", 0) + (not isinstance(getattr(method, "combine", None), Penalty))
    elif reads and not fused:
        own["scale"] = 1
    own["axpy"] += len(method.keeps)
    return own


def primitives(params: list[Tensor]) -> list[Contender]:
    """The passes that floors are made of, each the fastest known here: one foreach call where tensors are small."""
    ws = [p.detach().clone() for p in params]  # an alias would be one more user of the storage: nothing would move
    gs = [torch.randn_like(w) for w in ws]
    out = [torch.empty_like(w) for w in ws]
    small = sum(w.numel() for w in ws) < SMALL

    def axpy() -> None:
        if small:
            torch._foreach_copy_(out, torch._foreach_add(ws, gs, alpha=0.05))
        else:
            for w, g, x in zip(ws, gs, out, strict=True):
                torch.add(w, g, alpha=0.05, out=x)

    def dot() -> None:
        for w, g in zip(ws, gs, strict=True):
            torch.dot(w.view(-1), g.view(-1))

    def norm() -> None:
        torch._foreach_norm(gs)

    def floor(_: Any) -> None:
        norm()
        axpy()
        norm()

    one = torch.ones(())
    return [
        Contender("floor", floor),
        Contender("norm", lambda _: norm()),
        Contender("axpy", lambda _: axpy()),
        Contender("dot", lambda _: dot()),
        Contender("scale", lambda _: torch._foreach_mul_(out, one)),
    ]


def plain(params: list[Tensor], base: str) -> Contender:
    """The base's own step."""
    kind, options = BASES[base]
    made = kind(params, **options)

    def step(give: Callable[[], Any]) -> None:
        give()
        made.step()

    return Contender("base", step)


def variants(size: int) -> list[str]:
    """Names of all that can be timed on a set of that many parameters, presets first."""
    fit = [n for n in PRESETS if n not in UNFIT and (size < SMALL or n not in _ONLY_SMALL)]
    return [*fit, *_OWN, "bare move", "textbook SAM", *(f"pip {name}" for name in PIP)]


def build(name: str, params: list[Tensor], base: str) -> Contender | None:
    """The contender of that name; None for a peer that is not installed."""
    kind, options = BASES[base]
    if name.startswith("pip "):
        peer = from_pip(name.removeprefix("pip "), params, kind, options)
        period = PERIOD if name.endswith("LookSAM") else 1
        return None if peer is None else Contender(name, peer.step, period)
    made = kind(params, **options)
    if name == "textbook SAM":
        return Contender(name, TextbookSAM(made).step)
    if name == "bare move":
        return Contender(name, BareMove(made).step)
    if name in PRESETS:
        row = PRESETS[name]
        opt = row.build(made, **_OPTIONS.get(name, {}))
        period = 1 if row.always else PERIOD
        return Contender(name, opt.step, period, passes_of(opt, base.endswith("-fused")))
    return Contender(name, SAM(made, **_OWN[name]).step)
