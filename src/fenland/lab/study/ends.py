"""What the study `late-sam` measures of trained networks: eigenvalues, the line between two ends, and SAM after SGD."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from fenland.lab.study.full_batch import eigenvalue, optimizer
from fenland.lab.study.network import closure, trained
from fenland.lab.training.probe import loss_of

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig


def end(run: RunConfig, weights: Path, *, examples: int, tol: float) -> pd.DataFrame:
    """``eigenvalue, residual, loss`` of the training loss at the end of a run, in evaluation mode."""
    model, batch = _with_batch(run, weights, examples)
    found = eigenvalue(model, loss_of, batch, tol)
    return pd.DataFrame([{"eigenvalue": found.value, "residual": found.residual, "loss": _value(model, batch)}])


def line(run: RunConfig, first: Path, second: Path, *, points: int, examples: int) -> pd.DataFrame:
    """``at, loss`` of the training loss along the straight line between two ends, 0 at the first, in evaluation mode.

    Buffers (running means of a batch norm) are interpolated like weights.
    """
    model, batch = _with_batch(run, first, examples)
    start = {name: x.clone() for name, x in model.state_dict().items()}
    stop = trained(run, second)[0].state_dict()
    rows = []
    for number in range(points):
        at = number / (points - 1)
        between = {
            name: x + at * (stop[name] - x) if x.is_floating_point() else x for name, x in start.items()
        }  # fmt: skip
        model.load_state_dict(between)
        rows.append({"at": at, "loss": _value(model, batch)})
    return pd.DataFrame(rows)


def after(
    run: RunConfig, weights: Path, method: str, *, rho: float, steps: int, every: int, examples: int, tol: float
) -> pd.DataFrame:  # fmt: skip
    """Mini-batch steps from the end of a run on: ``method, step, loss, distance, eigenvalue``.

    The learning rate is the run's highest and stays, momentum and weight decay are the run's.
    """
    model, batches = trained(run, weights)
    batch = _whole(batches, examples)
    origin = [p.detach().clone() for p in model.parameters()]
    base = torch.optim.SGD(model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay)
    opt = optimizer(method, base, rho)
    rows, step, epoch = [], 0, run.epochs
    while True:
        epoch += 1
        for images, labels in batches.epoch(epoch):
            if step % every == 0:
                model.eval()
                found = eigenvalue(model, loss_of, batch, tol)
                rows.append([step, _value(model, batch), _distance(model, origin), found.value])
            if step == steps:
                return pd.DataFrame(rows, columns=["step", "loss", "distance", "eigenvalue"]).assign(method=method)
            opt.step(closure(opt, model.train(), loss_of, (images, labels)))
            step += 1


def _distance(model: nn.Module, origin: list[Tensor]) -> float:
    apart = [p.detach() - at for p, at in zip(model.parameters(), origin, strict=True)]
    return float(torch.stack([x.square().sum() for x in apart]).sum().sqrt())


def barrier(losses: list[float]) -> float:
    """By how much a line rises over the straight line between the losses at its ends (Frankle et al. 2020)."""
    count = len(losses) - 1
    flat = [losses[0] + (losses[-1] - losses[0]) * k / count for k in range(count + 1)]
    return max(value - chord for value, chord in zip(losses, flat, strict=True))


def _with_batch(run: RunConfig, weights: Path, examples: int) -> tuple[nn.Module, Any]:
    model, batches = trained(run, weights)
    return model, _whole(batches, examples)


def _whole(batches: Any, examples: int) -> tuple[Tensor, Tensor]:
    parts = list(batches.evaluation("train", examples))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@torch.no_grad()
def _value(model: nn.Module, batch: Any) -> float:
    return float(loss_of(model, batch))
