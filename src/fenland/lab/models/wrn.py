"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146, table 1)."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from fenland.lab.errors import BadInput
from fenland.lab.models.parts import at_least, he_normal, repeats, stages

_NAME = re.compile(r"wrn([1-9]\d*)-([1-9]\d*)")


class WRN(nn.Module):
    """6n+4 layers: 16 filters, then n blocks in each of three stages of 16k, 32k and 64k, k the widening factor.

    Blocks are in the order batch norm, ReLU, convolution. For CIFAR-10 WRN-16-10 has 17,116,634 parameters and
    WRN-28-10 has 36,479,194.

    Args:
        depth: 6n+4 layers.
        widen: the factor k.
        rate: of the dropout between the two convolutions of a block; the paper's best CIFAR results use 0 or 0.3.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, depth: int = 28, widen: int = 10, rate: float = 0.0
    ) -> None:
        super().__init__()
        at_least(4, shape, f"wrn{depth}-{widen}")
        blocks = repeats(depth, 6, 4, "10, 16, 22, 28 or 40")
        if widen < 1:
            raise BadInput("widen", widen, "give a whole number >= 1")
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        plan = [(16, 16 * widen, 1), (16 * widen, 32 * widen, 2), (32 * widen, 64 * widen, 2)]
        self.stages = stages(_Block, plan, blocks, rate)
        self.norm = nn.BatchNorm2d(64 * widen)
        self.out = nn.Linear(64 * widen, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stages(self.conv(images))))
        logits: Tensor = self.out(x.mean((2, 3)))
        return logits


class _Block(nn.Module):
    """Two pre-activated 3x3 convolutions; a 1x1 convolution of the activated input where the width or size changes."""

    def __init__(self, before: int, width: int, stride: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = (before, stride) == (width, 1)
        self.shortcut = None if same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        y = torch.relu(self.norm2(self.conv1(active)))
        if self.rate:
            y = dropout(y, self.rate, self.training)
        skipped: Tensor = x if self.shortcut is None else self.shortcut(active)
        summed: Tensor = skipped + self.conv2(y)
        return summed


def parse(name: str) -> tuple[int, int] | None:
    """Depth and widening factor of a name ``wrnD-K``; None for a name of another form.

    Raises:
        BadInput: the depth is not 6n+4.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    depth, widen = int(match[1]), int(match[2])
    if depth < 10 or (depth - 4) % 6:
        raise BadInput("model", name, "the depth of a wrnD-K is 6n+4, such as 10, 16, 22, 28 or 40")
    return depth, widen
