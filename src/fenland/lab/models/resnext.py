"""ResNeXt for small images (Xie et al. 2017, arXiv:1611.05431, section 5.4): bottlenecks of grouped convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fenland.lab.errors import BadInput
from fenland.lab.models.parts import at_least, he_normal, repeats, stages


class ResNeXt(nn.Module):
    """9n+2 layers: 64 filters, then n bottlenecks in each of three stages with 256, 512 and 1024 outputs.

    A bottleneck is 1x1, 3x3 in ``groups`` groups, 1x1; its inner width is groups * width, doubled from stage to stage.
    ResNeXt-29 of 32 groups of width 4 has 4,775,754 parameters for CIFAR-10.

    Args:
        depth: 9n+2 layers.
        groups: the paper's cardinality C.
        width: filters of one group in the first stage, the paper's d.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, depth: int = 29, groups: int = 32, width: int = 4
    ) -> None:
        super().__init__()
        at_least(4, shape, f"resnext{depth}-{groups}x{width}d")
        blocks = repeats(depth, 9, 2, "20, 29 or 38")
        if groups < 1 or width < 1:
            raise BadInput("groups x width", f"{groups}x{width}", "give whole numbers >= 1")
        self.conv = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        inner = groups * width
        plan = [(64, inner, 256, 1), (256, 2 * inner, 512, 2), (512, 4 * inner, 1024, 2)]
        self.stages = stages(_Block, plan, blocks, groups)
        self.out = nn.Linear(1024, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(torch.relu(self.norm(self.conv(images))))
        logits: Tensor = self.out(x.mean((2, 3)))
        return logits


class _Block(nn.Module):
    """The paper's figure 3c, batch norm after each convolution; a projection where the width changes."""

    def __init__(self, before: int, middle: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, middle, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=groups, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, after, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        return torch.relu(self.norm3(self.conv3(y)) + self.shortcut(x))
