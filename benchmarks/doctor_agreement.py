"""Does the doctor's verdict agree with what training does? An MLP on real digits, over learning rates and radii.

    python benchmarks/doctor_agreement.py [--steps 40] [--out FILE.json]

From each of a few base points (full-batch SGD with a small learning rate, so that the limit is not yet reached) every
method continues on the same 256 examples, full batch, with each learning rate and radius. Training counts as unstable
where the loss within `--steps` steps ever exceeds `RISE` times that of the base point, or is not finite. The doctor
sees the base point only. Learning rates are multiples of SGD's limit there, so that the grid straddles all limits.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import fenland
from fenland.lab.data import digits
from fenland.lab.models import build_model

EXAMPLES = 256
BASES = {"plain": 0.0, "momentum 0.9": 0.9}
SHARES = (0.1, 0.25, 0.5, 0.7, 0.85, 1.2, 1.6, 3.0)
NORMALIZED, UNNORMALIZED = (0.03, 0.2), (0.1, 0.6)
RISES = (1.0, 1.1, 2.0)
RISE = 1.1

Make = Callable[[torch.optim.Optimizer, float], torch.optim.Optimizer]
METHODS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "SGD": (lambda base, rho: base, (0.0,)),
    "USAM": (lambda base, rho: fenland.USAM(base, rho=rho), UNNORMALIZED),
    "SSAM-U": (lambda base, rho: fenland.SSAM(base, rho=rho, normalize=False), UNNORMALIZED),
    "SAM": (lambda base, rho: fenland.SAM(base, rho=rho), NORMALIZED),
    "SSAM": (lambda base, rho: fenland.SSAM(base, rho=rho), NORMALIZED),
}


def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def base_point(steps: int, seed: int, batch: Any) -> nn.Module:
    """A model after `steps` full-batch steps of SGD at lr 0.05."""
    torch.manual_seed(seed)
    model = build_model("mlp", (1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    return model


def highest(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, steps: int) -> float:
    """The largest loss on the way; inf where it is not finite."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()
        return loss.detach()

    most = 0.0
    for _ in range(steps):
        loss = float(optimizer.step(closure))
        if not math.isfinite(loss):
            return math.inf
        most = max(most, loss)
        if most > 1e3:
            break
    return most


def run(point: nn.Module, batch: Any, momentum: float, steps: int) -> list[dict[str, Any]]:
    """One row for each method, radius and learning rate from one base point."""
    plain = fenland.diagnose(point, loss_fn, [batch], torch.optim.SGD(point.parameters(), lr=0.1, momentum=momentum))
    rows = []
    for method, (make, rhos) in METHODS.items():
        for rho in rhos:
            for share in SHARES:
                model = copy.deepcopy(point)
                sgd = torch.optim.SGD(model.parameters(), lr=share * plain.limits[0].lr, momentum=momentum)
                optimizer = make(sgd, rho)
                said = fenland.diagnose(model, loss_fn, [batch], optimizer)
                row = {"method": method, "rho": rho, "lr": sgd.param_groups[0]["lr"], "share of SGD's limit": share}
                row |= {"verdict": said.verdict, "strayed": said.strayed, "loss": said.loss, "momentum": momentum}
                row |= {"largest eigenvalue": said.largest.value, "gradient norm": said.gradient_norm}
                rows.append({**row, "highest loss": highest(model, optimizer, batch, steps)})
    return rows


def confusion(rows: list[dict[str, Any]], rise: float) -> dict[str, int]:
    """Counts of (what the doctor said, what training did)."""
    seen: Counter[str] = Counter()
    for row in rows:
        happened = "unstable" if not row["highest loss"] <= rise * row["loss"] else "stable"
        seen[f"said {row['verdict']}, was {happened}"] += 1
    return dict(sorted(seen.items()))


def agreement(counts: dict[str, int]) -> float:
    """Share of the clear verdicts (stable, unstable) that came true; NaN where there is none."""
    clear = {key: n for key, n in counts.items() if key.startswith(("said stable", "said unstable"))}
    right = clear.get("said stable, was stable", 0) + clear.get("said unstable, was unstable", 0)
    return right / sum(clear.values()) if clear else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--points", type=int, nargs="+", default=[50, 400], help="steps to each base point")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = digits.load()
    batch = (torch.from_numpy(data.train[:EXAMPLES]).float() / 8 - 1, torch.from_numpy(data.train_labels[:EXAMPLES]))
    rows: list[dict[str, Any]] = []
    for name, momentum in BASES.items():
        for steps in args.points:
            for seed in args.seeds:
                found = run(base_point(steps, seed, batch), batch, momentum, args.steps)
                rows += [{"base": name, "point": steps, "seed": seed, **row} for row in found]
                print(f"{name}, point {steps}, seed {seed}: {agreement(confusion(found, RISE)):.1%} agree", flush=True)
    groups = {"all": rows, **{m: [r for r in rows if r["method"] == m] for m in METHODS}}
    groups |= {f"{m}, {name}": [r for r in groups[m] if r["base"] == name] for m in METHODS for name in BASES}
    summary = {
        name: {str(rise): {"agreement": agreement(confusion(own, rise)), **confusion(own, rise)} for rise in RISES}
        for name, own in groups.items()
    }
    for name, by_rise in summary.items():
        print(f"{name}: {by_rise[str(RISE)]}")
    if args.out is not None:
        finite = [{k: None if v in (math.inf, math.nan) else v for k, v in row.items()} for row in rows]
        about = {"machine": platform.machine(), "torch": torch.__version__, "steps": args.steps, "rise": RISE}
        args.out.write_text(json.dumps({**about, "summary": summary, "rows": finite}, indent=1) + "\n")


if __name__ == "__main__":
    main()
