"""The loss that davda54/sam prints, at the last weights of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.study.base import Lab

# What the smoothed labels take from the true class.
SHARE = 0.1


def smoothed_loss(run: RunConfig, lab: Lab) -> pd.DataFrame:
    """One row ``loss``: the mean of `divergence` over the test set, in evaluation mode."""
    from fenland.lab import data
    from fenland.lab.models import build_model

    images = data.load(run)
    with torch.random.fork_rng():
        model = build_model(run.model, images.shape, len(images.classes))
    model.load_state_dict(dict(lab.weights(run)))
    device = torch.device(run.device)
    model.to(device).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch, labels in data.Batches(images, device, run.batch_size, run.seed).evaluation("test"):
            total += float(divergence(model(batch), labels).double().sum())
            count += len(labels)
    return pd.DataFrame({"loss": [total / count]})


def divergence(logits: Tensor, labels: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the smoothed labels from the softmax, one number an example.

    Args:
        logits: (batch, classes).
        labels: (batch,), class numbers.

    The target is 1 - 0.1 on the true class and 0.1 / (classes - 1) on each other, as davda54/sam has it, so that 0 is
    reached at outputs that are as unsure as the target.
    """
    classes = logits.shape[1]
    target = torch.full_like(logits, SHARE / (classes - 1))
    target.scatter_(1, labels[:, None], 1 - SHARE)
    return (target * (target.log() - logits.log_softmax(1))).sum(1)
