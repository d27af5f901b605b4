"""The ends of the Hessian's spectrum in the course of training, on a fixed probe batch."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fenland.diagnostics.curvature import extreme_eigenvalues

if TYPE_CHECKING:
    from fenland.lab.training.engine import Engine

_LOG = logging.getLogger(__name__)

# Train examples, a fixed stratified choice without augmentation: the eigenvalues are those of their mean loss.
PROBE = 256
# A curve needs two digits: eigenvalues to 1 %, which Lanczos reaches in a few dozen products.
TOLERANCE = 0.01
PRODUCTS = 100


def eigenvalues(engine: Engine, epoch: int) -> dict[str, float]:
    """``largest_eigenvalue`` and ``smallest_eigenvalue`` of the loss without smoothing, in evaluation mode.

    NaN in epochs that are not measured and where the loss is not finite. Weights, buffers and random states stay as
    they are, so that a run with and without it trains alike.
    """
    names = ("largest_eigenvalue", "smallest_eigenvalue")
    every, last = engine.config.curvature, engine.config.epochs
    if not every or (epoch % every and epoch != last):
        return dict.fromkeys(names, math.nan)
    probe = list(engine.batches.evaluation("train", PROBE))
    try:
        found = extreme_eigenvalues(
            engine.model.module, loss_of, probe, tol=TOLERANCE, max_products=PRODUCTS, size=_examples
        )
    except ValueError as error:
        _LOG.warning("%s: no eigenvalues in epoch %d (%s)", engine.config.label, epoch, error)
        return dict.fromkeys(names, math.nan)
    return dict(zip(names, (found.largest[0].value, found.smallest[0].value), strict=True))


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    """Mean cross-entropy of a batch (images, labels)."""
    return cross_entropy(model(batch[0]), batch[1])


def _examples(batch: Any) -> float:
    return float(len(batch[1]))
