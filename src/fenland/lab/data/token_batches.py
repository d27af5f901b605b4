"""Batches of texts on the device, in an order that is a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fenland.lab.data.batches import evaluated, generator, share
from fenland.lab.data.tokens import END, Tokens

# So many batches are drawn together and sorted by length: sentences of 27 tokens on average then take 30 in a batch of
# 32 and not the 51 of the longest one, and batches still differ from epoch to epoch.
TOGETHER = 16


class TokenBatches:
    """Token numbers for training and for evaluation, on a device, each batch cut to its longest text.

    Args:
        tokens: the tokenised set.
        device: where the batches are wanted.
        batch_size: examples per training step, all ranks together.
        seed: with the epoch's number it fixes the order.
        rank: number of this process among ``world``; it gets its own equal slice of each training batch.
        world: processes that share each training batch. What a batch holds does not depend on it.

    Raises:
        BadInput: the batch is larger than the train set or cannot be shared equally.
    """

    def __init__(
        self, tokens: Tokens, device: torch.device, batch_size: int, seed: int, *, rank: int = 0, world: int = 1
    ) -> None:
        self.batch_size = batch_size
        self.steps = len(tokens.train) // batch_size
        self._slice = share(batch_size, len(tokens.train), rank, world)
        self._seed = seed
        self._device = device
        self._splits = {
            "train": (torch.from_numpy(tokens.train), torch.from_numpy(tokens.train_labels)),
            "test": (torch.from_numpy(tokens.test), torch.from_numpy(tokens.test_labels)),
        }
        self._lengths = {name: (texts != END).sum(1) for name, (texts, _) in self._splits.items()}

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of an epoch, from batch ``start`` on: this rank's slice of each.

        Texts of a batch have similar lengths, and the batches come in any order. As many examples as do not fill a
        batch are left out, others each time.
        """
        for batch in self._order(number)[start:]:
            yield self._chosen("train", batch[self._slice])

    def evaluation(self, split: str, limit: int | None = None, size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples of ``train`` or ``test``, or a fixed stratified choice of ``limit``, by length.

        Every rank gets all of them.
        """
        order = evaluated(self._splits[split][1], limit)
        order = order[torch.argsort(self._lengths[split][order], stable=True)]
        for start in range(0, len(order), size):
            yield self._chosen(split, order[start : start + size])

    def _order(self, number: int) -> Tensor:
        """Which examples each batch of an epoch holds: shape (steps, batch size)."""
        source = generator(self._seed, number)
        drawn = torch.randperm(len(self._lengths["train"]), generator=source)[: self.steps * self.batch_size]
        lengths = self._lengths["train"]
        groups = [
            each[torch.argsort(lengths[each], stable=True)] for each in torch.split(drawn, TOGETHER * self.batch_size)
        ]
        batches = torch.cat(groups).view(self.steps, self.batch_size)
        return batches[torch.randperm(self.steps, generator=source)]

    def _chosen(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        texts, labels = self._splits[split]
        longest = int(self._lengths[split][rows].max())
        return texts[rows, :longest].long().to(self._device), labels[rows].to(self._device)
