"""Accuracy, loss and calibration of a model on a set, from its logits batch by batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

BINS = 15  # the usual number, of Guo et al. 2017


class Evaluation(NamedTuple):
    """What a model is worth on a set."""

    loss: float  # mean cross-entropy, without label smoothing
    accuracy: float  # share of right answers
    ece: float  # expected calibration error, in [0, 1]
    examples: int  # how many there were


class Tally:
    """Sums over batches, kept on the device until ``result`` reads them.

    The expected calibration error (Guo et al. 2017, arXiv:1706.04599, equation 3) sorts the examples by the confidence
    of the answer, the largest probability, into ``BINS`` bins (k / BINS, (k + 1) / BINS] and sums over them

        share of the examples * |accuracy in the bin - mean confidence in the bin|.
    """

    def __init__(self, device: torch.device) -> None:
        # Rows: examples, right answers, confidence by bin; the last column of the first row holds the loss.
        self.sums = torch.zeros(3, BINS + 1, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take a batch: logits (examples, classes) and class numbers (examples,)."""
        self.sums[0, BINS] += cross_entropy(logits, labels, reduction="sum").double()
        confidence, answers = logits.double().softmax(1).max(1)
        # A loss that is no number shows in the loss; its examples still need a bin.
        bins = (confidence.nan_to_num() * BINS).ceil().long().clamp(1, BINS) - 1
        rows = torch.stack([torch.ones_like(confidence), (answers == labels).double(), confidence])
        self.sums[:, :BINS].index_add_(1, bins, rows)

    def result(self) -> Evaluation:
        """It reads the device."""
        sums = self.sums.cpu()
        examples, right, confidence = sums[:, :BINS]
        count = examples.sum()
        loss, accuracy, ece = sums[0, BINS] / count, right.sum() / count, (right - confidence).abs().sum() / count
        return Evaluation(float(loss), float(accuracy), float(ece), int(count))
