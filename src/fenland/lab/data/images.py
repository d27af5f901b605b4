"""A decoded image data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Train and test images of one size, as bytes.

    Args:
        name: what the user called it.
        train: shape (examples, channels, height, width).
        train_labels: shape (examples,), class numbers from 0.
        test: as ``train``.
        test_labels: as ``train_labels``.
        classes: names of the classes, in the order of their numbers.
        noisy_labels: how many train labels were replaced by another class.
        normalisation: mean and deviation of each channel to normalise by; None for those of the train set.
    """

    name: str
    train: Bytes
    train_labels: Labels
    test: Bytes
    test_labels: Labels
    classes: tuple[str, ...]
    noisy_labels: int = 0
    normalisation: tuple[list[float], list[float]] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def normalised_as(self, other: Images) -> Images:
        """The same images, to be normalised as others are."""
        return dataclasses.replace(self, normalisation=other.statistics())

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the train set, in byte units, exact.

        They come from a histogram of the 256 values: no copy of the images in floating point. A set that carries its
        ``normalisation`` gives that.
        """
        if self.normalisation is not None:
            return self.normalisation
        values = np.arange(256, dtype=np.float64)
        means, deviations = [], []
        for channel in range(self.shape[0]):
            counts = np.bincount(self.train[:, channel].ravel(), minlength=256)
            mean = float(counts @ values / counts.sum())
            variance = float(counts @ (values - mean) ** 2 / counts.sum())
            means.append(mean)
            # A constant channel carries nothing: 1 keeps it at zero instead of dividing by zero.
            deviations.append(variance**0.5 or 1.0)
        return means, deviations


def stratified(labels: Labels, count: int, seed: int | tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Choose ``count`` positions at random so that every prefix of the choice has the classes' shares.

    Each example gets the rank (i + u) / n inside its shuffled class, u uniform; the smallest ranks are taken.
    """
    generator = np.random.default_rng(seed)
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        rank[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.sort(np.argsort(rank, kind="stable")[:count])
