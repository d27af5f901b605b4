"""A trained network at its last weights, with its images, and the Hessian of its training loss there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from fenland.diagnostics import curvature
from fenland.lab.training.probe import loss_of

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig


def trained(run: RunConfig, weights: Path) -> tuple[nn.Module, Any]:
    """The model in evaluation mode and the batches of its images, a `fenland.lab.data.Batches`."""
    from fenland.lab import data
    from fenland.lab.models import build_model

    images = data.load(run)
    with torch.random.fork_rng():
        model = build_model(run.model, images.shape, len(images.classes))
    model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    device = torch.device(run.device)
    return model.to(device).eval(), data.Batches(images, device, run.batch_size, run.seed)


def eigenvalues(
    run: RunConfig, weights: Path, *, examples: int | None, count: int, tol: float, products: int, draws: int
) -> pd.DataFrame:
    """``kind, rank, value, error``: "largest" with their residuals, "trace" with its standard error if it is drawn."""
    model, batches = trained(run, weights)
    data = list(batches.evaluation("train", examples))
    found = curvature.extreme_eigenvalues(
        model, loss_of, data, k=count, which="largest", tol=tol, max_products=products
    )  # fmt: skip
    rows = [("largest", rank, pair.value, pair.residual) for rank, pair in enumerate(found.largest, 1)]
    if draws:
        trace = curvature.trace(model, loss_of, data, draws=draws)
        rows.append(("trace", 0, trace.value, trace.standard_error))
    return pd.DataFrame(rows, columns=["kind", "rank", "value", "error"])


def density(run: RunConfig, weights: Path, *, examples: int | None, paths: int, steps: int) -> pd.DataFrame:
    """``path, node, weight`` of the quadrature; the weights of a path sum to 1."""
    model, batches = trained(run, weights)
    found = curvature.density(model, loss_of, list(batches.evaluation("train", examples)), draws=paths, steps=steps)
    rows = [
        (path, float(node), float(weight))
        for path, (nodes, weights_of) in enumerate(zip(found.nodes, found.weights, strict=True))
        for node, weight in zip(nodes, weights_of, strict=True)
    ]
    return pd.DataFrame(rows, columns=["path", "node", "weight"])


def closure(
    opt: torch.optim.Optimizer, model: nn.Module, loss_fn: Callable[[Any, Any], Tensor], batch: Any
) -> Callable[[], Tensor]:
    """What torch's optimizers call for a loss."""

    def evaluate() -> Tensor:
        opt.zero_grad()
        loss = loss_fn(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return evaluate


def quadrature(rows: pd.DataFrame) -> curvature.Density:
    """A density from the rows of one run."""
    paths = [part for _, part in rows.groupby("path")]
    nodes, weights = (tuple(torch.tensor(p[name].to_numpy()) for p in paths) for name in ("node", "weight"))
    return curvature.Density(nodes, weights, 0)
