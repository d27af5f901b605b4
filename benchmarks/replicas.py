"""Trajectory-steps a second of the quartic in replicas: compiled, plain eager, and a loop over `torch.optim` steps.

    python benchmarks/replicas.py [--methods SAM SSAM-U] [--steps 5e8] [--threads 2] [--out FILE.json]

All in one run, taking turns, so that a noisy machine disturbs all alike; the best of `--rounds` counts (others only add
what the machine does beside). Compiling is timed apart: it is paid once a rule and problem, and less from the second
process on (the compiler's cache). The eager engine and the loop run a small part and are scaled up.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from fenland import PRESETS
from fenland.lab.replicas import Quartic, grid, near, run

TARGET_STEPS, TARGET_SECONDS, TARGET_RATIO = 5e8, 5.0, 1000
REPLICAS = 1 << 20


def loop_rate(method: str, steps: int = 300) -> float:
    """Steps a second of the real optimizer on one start, the gradient written by hand: no autograd on the clock."""
    w = torch.nn.Parameter(torch.tensor([0.5, 0.6], dtype=torch.float64))
    opt = PRESETS[method].build(torch.optim.SGD([w], lr=0.05), rho=0.1, replay_rng=False)

    def closure() -> None:
        x, y = w.detach()
        w.grad = torch.stack([x * x * x - y, y - x])

    for _ in range(20):
        opt.step(closure)
    start = time.perf_counter()
    for _ in range(steps):
        opt.step(closure)
    return steps / (time.perf_counter() - start)


def measure(method: str, total: float, threads: int, rounds: int) -> dict[str, float | str]:
    """Seconds for `total` trajectory-steps by each way, and their ratios."""
    problem = Quartic()
    start = problem.pack(torch.randn(REPLICAS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    many, few = grid(start, rho=0.1, lr=0.05), grid([x[: 1 << 16] for x in start], rho=0.1, lr=0.05)
    goal = {"reached": near(problem, problem.minima, 1e-3), "bound": 1e6}
    steps = max(4, round(total / REPLICAS))
    compiling = run(problem, method, few, 4, engine="compiled", threads=threads, **goal).seconds
    seconds: dict[str, list[float]] = {"compiled": [], "plain": [], "loop": []}
    for _ in range(rounds):
        fast = run(problem, method, many, steps, engine="compiled", threads=threads, **goal)
        seconds["compiled"].append(fast.seconds * total / (steps * REPLICAS))
        plain = run(problem, method, few, 20, engine="plain", **goal)
        seconds["plain"].append(plain.seconds * total / (20 * few.replicas))
        seconds["loop"].append(total / loop_rate(method))
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "method": method,
        "compiling": compiling,
        **best,
        "plain / compiled": best["plain"] / best["compiled"],
        "loop / compiled": best["loop"] / best["compiled"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["SAM", "SSAM-U"])
    parser.add_argument("--steps", type=float, default=TARGET_STEPS, help="trajectory-steps that seconds are given for")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(method, args.steps, args.threads, args.rounds) for method in args.methods]
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {args.threads} threads")
    print(
        f"seconds for {args.steps:.0e} trajectory-steps (target {TARGET_SECONDS} for {TARGET_STEPS:.0e}, 1000x a loop)"
    )
    print(f"{'method':10} {'compiled':>9} {'plain':>9} {'loop':>11} {'vs plain':>9} {'vs loop':>9} {'compiling':>10}")
    for r in rows:
        print(
            f"{r['method']:10} {r['compiled']:9.2f} {r['plain']:9.1f} {r['loop']:11.0f} "
            f"{r['plain / compiled']:9.1f} {r['loop / compiled']:9.0f} {r['compiling']:10.1f}"
        )
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
