"""ResNet for small images (He et al. 2016, section 4.2): three stages of 16, 32 and 64 filters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fenland.lab.errors import BadInput
from fenland.lab.models.parts import at_least, he_normal, repeats, stages


class ResNet(nn.Module):
    """6n+2 layers: a 3x3 convolution, n blocks in each of three stages, mean over the image, the classes.

    For CIFAR-10, depth 20 has 272,474 parameters with projections and 269,722 with identity shortcuts.

    Args:
        depth: 6n+2 layers.
        shortcut: where a stage halves the image, ``projection`` (1x1 convolution and batch norm) or ``identity``
            (every second pixel, new channels zero: the original paper's option A).
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, depth: int = 20, shortcut: str = "projection"
    ) -> None:
        super().__init__()
        at_least(4, shape, f"resnet{depth}" + "-identity" * (shortcut == "identity"))
        blocks = repeats(depth, 6, 2, "20, 32, 44, 56 or 110")
        if shortcut not in ("projection", "identity"):
            raise BadInput("shortcut", shortcut, "choose one of projection, identity")
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.stages = stages(_Block, [(16, 16, 1), (16, 32, 2), (32, 64, 2)], blocks, shortcut)
        self.out = nn.Linear(64, classes)
        # As in the paper; torch's default for convolutions is narrower.
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(images)))
        logits: Tensor = self.out(self.stages(x).mean((2, 3)))
        return logits


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, before: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if (before, stride) != (width, 1):
            projection = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.shortcut = projection if shortcut == "projection" else _Subsample(width - before, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class _Subsample(nn.Module):
    """Every ``stride``-th pixel; the new channels are zeros, half before and half after the old ones."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra = extra
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.extra // 2
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))
