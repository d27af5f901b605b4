"""Time of the ascent and the descent beyond the base's own step, as multiples of what memory allows.

    python benchmarks/step.py [--sets resnet20 wrn28_10] [--bases sgd sgd-fused] [--rounds 30] [--out FILE.json]

The floor (read g once, one pass w, g -> w + e, read h once) is measured in the same run, on the same bytes, and all
methods take turns, so that a noisy machine disturbs all alike. Gradients are fresh tensors each time, made outside the
clock. Figures are medians; the spread is half of the interquartile range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fenland
from parameter_sets import SETS
from peers import TextbookSAM, from_pip

BASES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-4),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
}
RULES: dict[str, Callable[..., Any]] = {
    "SAM": lambda base: fenland.SAM(base, replay_rng=False),
    "SSAM": lambda base: fenland.SSAM(base, replay_rng=False),
    "SAM (copy)": lambda base: fenland.SAM(base, replay_rng=False, travel="copy"),
}


class Contender:
    """Parameters, gradients and a way to step; every contender has its own."""

    def __init__(self, shapes: list[tuple[int, ...]], make: Callable[[list[Tensor]], Any]) -> None:
        g = torch.Generator().manual_seed(0)
        self.params = [torch.nn.Parameter(torch.randn(s, generator=g) * 0.02) for s in shapes]
        self.source = [torch.randn(s, generator=g) * 1e-3 for s in shapes]
        self.method = make(list(self.params))
        self.seconds: list[float] = []

    def give(self) -> None:
        """Fresh gradients, held by nobody else, outside the clock."""
        for p, g in zip(self.params, self.source, strict=True):
            p.grad = g.clone()

    def round(self) -> None:
        """One step on the clock."""
        self.give()
        start = time.perf_counter()
        self.first()
        spent = time.perf_counter() - start
        if hasattr(self.method, "descend"):
            self.give()
            start = time.perf_counter()
            self.method.descend()
            spent += time.perf_counter() - start
        self.seconds.append(spent)

    def first(self) -> None:
        """The whole step of a base, the ascent of a two-step method."""
        (self.method.ascend if hasattr(self.method, "ascend") else self.method.step)()


class Floor:
    """Two norm passes and one a + s * b -> out pass over the parameters' bytes, nothing else."""

    def __init__(self, params: list[Tensor]) -> None:
        self.w = [p.detach() for p in params]
        self.g = [torch.randn_like(w) for w in self.w]
        self.out = [torch.empty_like(w) for w in self.w]

    def step(self) -> None:
        """The passes; small tensors in one foreach call, large ones one by one, as the fastest here."""
        torch._foreach_norm(self.g)
        if sum(w.numel() for w in self.w) < 1 << 20:
            torch._foreach_copy_(self.out, torch._foreach_add(self.w, self.g, alpha=0.05))
        else:
            for w, g, out in zip(self.w, self.g, self.out, strict=True):
                torch.add(w, g, alpha=0.05, out=out)
        torch._foreach_norm(self.g)


def contenders(shapes: list[tuple[int, ...]], base: str) -> dict[str, Contender]:
    """Everything that takes turns on one parameter set and base."""
    make = BASES[base]
    found = {"floor": Contender(shapes, Floor), "base": Contender(shapes, make)}
    for name, rule in RULES.items():
        found[name] = Contender(shapes, lambda p, rule=rule: rule(make(p)))
    found["textbook SAM"] = Contender(shapes, lambda p: TextbookSAM(make(p)))
    if base in ("sgd", "adamw"):
        cls, options = (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9}) if base == "sgd" else (torch.optim.AdamW, {})
        pip = Contender(shapes, lambda p: from_pip(p, cls, **options) or TextbookSAM(make(p)))
        if not isinstance(pip.method, TextbookSAM):
            found["pytorch-optimizer SAM"] = pip
    return found


def measure(shapes: list[tuple[int, ...]], base: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians and spreads of all contenders, in milliseconds, and their cost in floors."""
    taking_turns = contenders(shapes, base)
    for contender in taking_turns.values():  # warm-up: allocator, optimizer state, code paths
        for _ in range(3):
            contender.round()
        contender.seconds.clear()
    for _ in range(rounds):
        for contender in taking_turns.values():
            contender.round()
    rows = {}
    floor = statistics.median(taking_turns["floor"].seconds)
    plain = statistics.median(taking_turns["base"].seconds)
    for name, contender in taking_turns.items():
        quartiles = statistics.quantiles(contender.seconds, n=4)
        median = statistics.median(contender.seconds)
        extra = median if name == "floor" else median - plain
        rows[name] = {
            "ms": median * 1e3,
            "spread_ms": (quartiles[2] - quartiles[0]) / 2 * 1e3,
            "extra_ms": extra * 1e3,
            "floors": extra / floor,
        }
    return rows


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "fenland": fenland.__version__,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def show(name: str, base: str, rows: dict[str, dict[str, float]]) -> None:
    """One table."""
    print(f"\n{name}, base {base}\n{'':24}{'ms':>9}{'+-':>8}{'extra ms':>10}{'floors':>8}")
    for label, row in rows.items():
        floors = "" if label == "base" else f"{row['floors']:8.2f}"
        print(f"{label:24}{row['ms']:9.3f}{row['spread_ms']:8.3f}{row['extra_ms']:10.3f}{floors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["resnet20", "wrn28_10"], choices=list(SETS))
    parser.add_argument("--bases", nargs="+", default=["sgd", "sgd-fused"], choices=list(BASES))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON")
    args = parser.parse_args()
    if args.rounds < 3:
        sys.exit(f"--rounds {args.rounds}: at least 3, for quartiles")
    if args.threads:
        torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"machine": machine(), "rounds": args.rounds, "sets": {}}
    for name in args.sets:
        for base in args.bases:
            rows = measure(SETS[name](), base, args.rounds)
            result["sets"].setdefault(name, {})[base] = rows
            show(name, base, rows)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = args.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=2))
        temporary.replace(args.out)
        print(f"\n{args.out}")


if __name__ == "__main__":
    main()
