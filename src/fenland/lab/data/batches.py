"""Batches on the device, in an order that is a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fenland.lab.data.images import Images, stratified
from fenland.lab.errors import BadInput

# Zero padding of the random crop: 4 pixels for 32x32 images, as in He et al. 2016.
PADDING = 4


def generator(*key: int) -> torch.Generator:
    """A CPU generator that is a function of the key alone, whatever was drawn before."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class Batches:
    """A data set on a device: normalised batches for training and for evaluation.

    The images stay bytes on the device, a quarter of their size in float32; a batch is normalised when it is used.

    Args:
        images: the decoded set.
        device: where it lives.
        batch_size: examples per training step.
        seed: with the epoch's number it fixes the order and the augmentation.
        augment: random crop and flip of the training batches.
        dtype: of the batches.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        batch_size: int,
        seed: int,
        augment: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch_size > len(images.train):
            raise BadInput("batch_size", batch_size, f"give at most {len(images.train)}, the size of the train set")
        mean, deviation = images.statistics()
        self.batch_size = batch_size
        self.steps = len(images.train) // batch_size
        self._seed = seed
        self._augment = augment
        self._dtype = dtype
        self._device = device
        self._mean = torch.tensor(mean, device=device, dtype=dtype).view(-1, 1, 1)
        self._scale = torch.tensor(deviation, device=device, dtype=dtype).reciprocal().view(-1, 1, 1)
        self._train = (torch.from_numpy(images.train).to(device), torch.from_numpy(images.train_labels).to(device))
        self._test = (torch.from_numpy(images.test).to(device), torch.from_numpy(images.test_labels).to(device))

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of an epoch; the incomplete last one is dropped, another set of examples each time."""
        images, labels = self._train
        source = generator(self._seed, number)
        order = torch.randperm(len(images), generator=source).to(self._device)
        # Drawn on the CPU for the whole epoch: equal on every device, and no transfer in a step.
        shifts = torch.randint(0, 2 * PADDING + 1, (len(images), 2), generator=source) if self._augment else None
        flips = torch.rand(len(images), generator=source) < 0.5 if self._augment else None
        for start, stop in pairwise(range(0, self.steps * self.batch_size + 1, self.batch_size)):
            chosen = order[start:stop]
            batch = self._normalised(images[chosen])
            if shifts is not None and flips is not None:
                batch = crop_and_flip(batch, shifts[start:stop].to(self._device), flips[start:stop].to(self._device))
            yield batch, labels[chosen]

    def evaluation(self, split: str, limit: int | None = None, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples of ``train`` or ``test`` without augmentation, or a fixed stratified choice of ``limit``."""
        images, labels = self._train if split == "train" else self._test
        if limit is not None and limit < len(images):
            chosen = torch.from_numpy(stratified(labels.cpu().numpy(), limit, seed=1)).to(self._device)
            images, labels = images[chosen], labels[chosen]
        for start in range(0, len(images), size):
            yield self._normalised(images[start : start + size]), labels[start : start + size]

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.to(self._dtype) - self._mean) * self._scale


def crop_and_flip(images: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Shift every image by its own (row, column) offset inside a zero frame of ``PADDING``, and mirror where told.

    One gather for the whole batch; ``shifts`` (examples, 2) in 0 .. 2*PADDING, ``flips`` (examples,) of bool.
    """
    count, _, height, width = images.shape
    framed = torch.nn.functional.pad(images, (PADDING,) * 4)
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    columns = torch.arange(width, device=images.device).expand(count, -1)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + shifts[:, 1:]
    batch = torch.arange(count, device=images.device).view(-1, 1, 1)
    # Advanced indices around a slice move the channels last: (examples, rows, columns, channels).
    return framed[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
