"""A trained network at its last weights, with its images, for what is measured at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig


def trained(run: RunConfig, weights: Path) -> tuple[nn.Module, Any]:
    """The model in evaluation mode and the batches of its images, a `fenland.lab.data.Batches`.

    Args:
        run: that ended with it.
        weights: file of its last weights.
    """
    from fenland.lab import data
    from fenland.lab.models import build_model

    images = data.load(run)
    with torch.random.fork_rng():
        model = build_model(run.model, images.shape, len(images.classes))
    model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    device = torch.device(run.device)
    return model.to(device).eval(), data.Batches(images, device, run.batch_size, run.seed)
