"""What the study `spectrum` measures at the end of one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fenland.diagnostics import curvature
from fenland.lab.study.laboratory import read_weights

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.studies.spectrum import SpectrumConfig


@dataclass(frozen=True)
class Network:
    """A trained network with the images that its loss is the mean over; nothing is read before `make`.

    Attributes:
        run: that ended with it.
        weights: file of its last weights.
        examples: train images; None for all.
    """

    run: RunConfig
    weights: Path
    examples: int | None

    def make(self) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
        """The model at its last weights, in evaluation mode, and the batches."""
        from fenland.lab import data
        from fenland.lab.models import build_model

        images = data.load(self.run)
        with torch.random.fork_rng():
            model = build_model(self.run.model, images.shape, len(images.classes))
        model.load_state_dict(dict(read_weights(self.weights)))
        device = torch.device(self.run.device)
        batches = data.Batches(images, device, self.run.batch_size, self.run.seed)
        return model.to(device).eval(), list(batches.evaluation("train", self.examples))


def eigenvalues(at: Network, config: SpectrumConfig) -> pd.DataFrame:
    """``kind, rank, value, error``: "largest" with their residuals, "trace" with its standard error."""
    model, batches = at.make()
    found = curvature.extreme_eigenvalues(
        model, _loss, batches, k=config.count, which="largest", tol=config.tol, max_products=config.products
    )
    trace = curvature.trace(model, _loss, batches, draws=config.draws)
    rows = [("largest", rank, pair.value, pair.residual) for rank, pair in enumerate(found.largest, 1)]
    rows.append(("trace", 0, trace.value, trace.standard_error))
    return pd.DataFrame(rows, columns=["kind", "rank", "value", "error"])


def density(at: Network, config: SpectrumConfig) -> pd.DataFrame:
    """``path, node, weight`` of the quadrature; the weights of a path sum to 1."""
    model, batches = at.make()
    found = curvature.density(model, _loss, batches, draws=config.paths, steps=config.steps)
    return pd.DataFrame(
        [
            (path, float(node), float(weight))
            for path, (nodes, weights) in enumerate(zip(found.nodes, found.weights, strict=True))
            for node, weight in zip(nodes, weights, strict=True)
        ],
        columns=["path", "node", "weight"],
    )


def _loss(model: nn.Module, batch: Any) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)
