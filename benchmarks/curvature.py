"""CPU seconds to the largest eigenvalue and the trace of a Hessian: fenland against PyHessian, at equal accuracy.

    PYTHONPATH=/where/pyhessian/is python benchmarks/curvature.py [--rounds 3] [--out FILE.json]

Both get the same briefly trained model and the same batches of real digits. Reference: fenland in float64 with residual
1e-6. For each tolerance of PyHessian the fastest fenland run that is at least as accurate counts; all take turns, and
the median of the rounds is reported. One thread and CPU time, so that other work on the machine counts less. Without
PyHessian (GPL, on PyPI as `pyhessian`) fenland's own rows are measured.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fenland.diagnostics import curvature
from fenland.lab.data import digits
from fenland.lab.models import build_model

try:
    from pyhessian import hessian as PyHessian
except ImportError:
    PyHessian = None

OURS, THEIRS = (0.1, 0.05, 0.03, 0.01, 1e-3), ((1e-2, 100), (1e-3, 100), (1e-4, 1000))
DRAWS = 32
CASES = {"mlp, 5 batches of 256": ("mlp", 5, 256), "lenet, 1 batch of 512": ("lenet", 1, 512)}
CASES |= {"resnet20, 1 batch of 64": ("resnet20", 1, 64), "resnet20, 4 batches of 64": ("resnet20", 4, 64)}


def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def prepare(name: str, count: int, size: int) -> tuple[nn.Module, list[Any]]:
    """A model after 60 steps of SGD, and its batches."""
    torch.manual_seed(0)
    images, labels = load()
    model = build_model(name, tuple(images.shape[1:]), 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(60):
        pick = torch.randint(0, len(images), (128,))
        opt.zero_grad()
        loss_fn(model, (images[pick], labels[pick])).backward()
        opt.step()
    batches = [(images[i * size : (i + 1) * size], labels[i * size : (i + 1) * size]) for i in range(count)]
    return model.eval(), batches


def load() -> tuple[torch.Tensor, torch.Tensor]:
    data = digits.load()
    return torch.from_numpy(data.train).float() / 8 - 1, torch.from_numpy(data.train_labels)


def theirs(model: nn.Module, batches: list[Any]) -> Any:
    """PyHessian on a copy of the model, which it changes."""
    model = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # backward(create_graph=True) makes a reference cycle, says torch
        if len(batches) == 1:
            return PyHessian(model, F.cross_entropy, data=batches[0], cuda=False)
        return PyHessian(model, F.cross_entropy, dataloader=batches, cuda=False)


def timed(f: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    value = f()
    return time.process_time() - start, value


def eigenvalue(model: nn.Module, batches: list[Any], tol: float) -> float:
    found = curvature.extreme_eigenvalues(model, loss_fn, batches, which="largest", tol=tol)
    return found.largest[0].value


def tasks(model: nn.Module, batches: list[Any]) -> dict[tuple[str, str, str], Callable[[], float]]:
    """What is timed, by (quantity, library, setting)."""
    found: dict[tuple[str, str, str], Callable[[], float]] = {}
    for tol in OURS:
        found["largest", "fenland", f"tol {tol:g}"] = lambda tol=tol: eigenvalue(model, batches, tol)
    found["trace", "fenland", f"{DRAWS} draws"] = lambda: curvature.trace(model, loss_fn, batches, draws=DRAWS).value
    if PyHessian is not None:
        for tol, most in THEIRS:
            found["largest", "PyHessian", f"tol {tol:g}, {most} iterations"] = lambda tol=tol, most=most: theirs(
                model, batches
            ).eigenvalues(maxIter=most, tol=tol)[0][0]
        found["trace", "PyHessian", f"{DRAWS} draws"] = lambda: statistics.mean(
            theirs(model, batches).trace(maxIter=DRAWS, tol=0.0)
        )
    return found


def measure(name: str, rounds: int) -> dict[str, Any]:
    model, batches = prepare(*CASES[name])
    exact = curvature.extreme_eigenvalues(model, loss_fn, batches, which="largest", tol=1e-6, dtype=torch.float64)
    reference = exact.largest[0].value
    todo = tasks(model, batches)
    seen: dict[tuple[str, str, str], list[tuple[float, float]]] = {key: [] for key in todo}
    for i in range(rounds):
        for key, task in todo.items():
            torch.manual_seed(i)
            seen[key].append(timed(task))
    rows = []
    for (quantity, library, setting), runs in seen.items():
        error = max(abs(value - reference) / abs(reference) for _, value in runs) if quantity == "largest" else None
        seconds = statistics.median(s for s, _ in runs)
        rows.append({"quantity": quantity, "library": library, "setting": setting, "seconds": seconds, "error": error})
    return {"case": name, "reference": reference, "rows": rows, "ratios": ratios(rows)}


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each PyHessian row the fastest fenland row that is at least as accurate, and their times' ratio."""
    found = []
    for row in rows:
        if row["library"] != "PyHessian":
            continue
        peers = [r for r in rows if r["library"] == "fenland" and r["quantity"] == row["quantity"]]
        able = [r for r in peers if row["error"] is None or r["error"] <= max(row["error"], 1e-6)]
        best = min(able, key=lambda r: r["seconds"]) if able else None
        found.append(
            {
                "quantity": row["quantity"],
                "PyHessian": row["setting"],
                "fenland": best["setting"] if best else None,
                "times as fast": row["seconds"] / best["seconds"] if best else None,
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if PyHessian is None:
        print("PyHessian is not installed: fenland's own times only")
    found = []
    for name in args.cases:
        found.append(measure(name, args.rounds))
        print(f"{name}: largest eigenvalue {found[-1]['reference']:.6g}")
        for r in found[-1]["rows"]:
            error = "" if r["error"] is None else f"relative error {r['error']:.1e}"
            print(f"  {r['quantity']:8} {r['library']:10} {r['setting']:26} {r['seconds']:8.3f} s  {error}")
        for r in found[-1]["ratios"]:
            print(f"  fenland ({r['fenland']}) is {r['times as fast'] or 0:.2f} times as fast as {r['PyHessian']}")
    if args.out is not None:
        machine = {
            "machine": platform.machine(),
            "torch": torch.__version__,
            "threads": 1,
            "clock": "process_time",
            "rounds": args.rounds,
        }
        args.out.write_text(json.dumps({**machine, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
