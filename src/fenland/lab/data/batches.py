"""Batches on the device, in an order that is a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fenland.lab.data.augment import Augmentation
from fenland.lab.data.images import Images, stratified
from fenland.lab.errors import BadInput

# Share of an accelerator's free memory that a data set may fill; the rest is the model's.
ROOM = 0.5


def generator(*key: int) -> torch.Generator:
    """A CPU generator that is a function of the key alone, whatever was drawn before."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def room(device: torch.device) -> int | None:
    """Bytes of images that a device may hold: half of a CUDA device's free memory; None for no limit.

    The CPU and Apple's GPU share the memory that the images are in already.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * ROOM)


def share(batch_size: int, examples: int, rank: int, world: int) -> slice:
    """This rank's equal part of a training batch."""
    if batch_size > examples:
        raise BadInput("batch_size", batch_size, f"give at most {examples}, the size of the train set")
    if batch_size % world:
        raise BadInput("batch_size", batch_size, f"give a multiple of {world}, the number of processes")
    return slice(rank * batch_size // world, (rank + 1) * batch_size // world)


def evaluated(labels: Tensor, limit: int | None) -> Tensor:
    """Positions of all examples, or of a fixed stratified choice of ``limit``."""
    if limit is not None and limit < len(labels):
        return torch.from_numpy(stratified(labels.cpu().numpy(), limit, seed=1))
    return torch.arange(len(labels))


class Batches:
    """Normalised batches for training and for evaluation, on a device.

    The images stay bytes, a quarter of their size in float32; a batch is normalised when it is used. They live on the
    device where they fit (``room``). Where not, they stay in the host's memory, and the bytes of each batch cross to
    the device through pinned memory. The batches are the same either way.

    Args:
        images: the decoded set.
        device: where the batches are wanted.
        batch_size: examples per training step, all ranks together.
        seed: with the epoch's number it fixes the order and the augmentation.
        augment: random crop and flip of the training batches.
        dtype: of the batches.
        cutout: side in pixels of the square that is blanked in each training image; 0 for none.
        cutout_share: of the images that it is blanked in.
        rank: number of this process among ``world``; it gets its own equal slice of each training batch.
        world: processes that share each training batch. What a batch holds does not depend on it.
        limit: bytes of images that the device may hold; None asks ``room``.

    Raises:
        BadInput: the batch is larger than the train set or cannot be shared equally, or the cutout is too large.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        batch_size: int,
        seed: int,
        augment: bool = False,
        dtype: torch.dtype = torch.float32,
        *,
        cutout: int = 0,
        cutout_share: float = 1.0,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        self._slice = share(batch_size, len(images.train), rank, world)
        mean, deviation = images.statistics()
        self.batch_size = batch_size
        self.steps = len(images.train) // batch_size
        self._seed = seed
        self._augmentation = Augmentation(images.shape, augment, cutout, cutout_share)
        self._dtype = dtype
        self._device = device
        self._mean = torch.tensor(mean, device=device, dtype=dtype).view(-1, 1, 1)
        self._scale = torch.tensor(deviation, device=device, dtype=dtype).reciprocal().view(-1, 1, 1)
        allowed = room(device) if limit is None else limit
        size = images.train.nbytes + images.test.nbytes
        #: Where the images live.
        self.home = device if allowed is None or size <= allowed else torch.device("cpu")
        self._splits = {
            "train": (torch.from_numpy(images.train).to(self.home), torch.from_numpy(images.train_labels).to(device)),
            "test": (torch.from_numpy(images.test).to(self.home), torch.from_numpy(images.test_labels).to(device)),
        }

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of an epoch, from batch ``start`` on: this rank's slice of each.

        The incomplete last batch is dropped, another set of examples each time. The first batches need not be run to
        get a later one.
        """
        count = len(self._splits["train"][0])
        source = generator(self._seed, number)
        # Drawn on the CPU for the whole epoch: equal on every device, and one transfer of the order.
        order = torch.randperm(count, generator=source)
        draws = self._augmentation.draw(count, source)
        home, away = order.to(self.home), order.to(self._device)
        for step in range(start, self.steps):
            first = step * self.batch_size
            here = slice(first + self._slice.start, first + self._slice.stop)
            images, labels = self._chosen("train", home[here], away[here])
            yield self._augmentation(images, draws.part(here.start, here.stop)), labels

    def evaluation(self, split: str, limit: int | None = None, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples of ``train`` or ``test`` without augmentation, or a fixed stratified choice of ``limit``.

        Every rank gets all of them.
        """
        order = evaluated(self._splits[split][1], limit)
        home, away = order.to(self.home), order.to(self._device)
        for start in range(0, len(order), size):
            yield self._chosen(split, home[start : start + size], away[start : start + size])

    def _chosen(self, split: str, home: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self._splits[split]
        batch = images[home]
        if self.home != self._device:
            batch = batch.pin_memory() if self._device.type == "cuda" else batch
            batch = batch.to(self._device, non_blocking=True)
        return (batch.to(self._dtype) - self._mean) * self._scale, labels[away]
