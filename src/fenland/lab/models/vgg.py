"""VGG with batch norm for small images (Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, columns A and D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from fenland.lab.errors import BadInput
from fenland.lab.models.parts import at_least, he_normal

# Filters of the 3x3 convolutions, in the five stages that pooling by 2 separates.
_PLANS = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


class VGG(nn.Module):
    """The paper's convolutions, batch norm after each, pooling by 2 after each stage, then one dense layer.

    Two things differ from the paper, as usual for 32x32 images: the mean over what is left of the image and one dense
    layer of 512 replace the three wide ones, and batch norm (whose shift makes the convolutions' biases void: they
    have none) is added. A pooling that would leave less than one pixel is left out, so 28x28 images pool four times.
    For CIFAR-10 VGG-11 has 9,228,362 parameters and VGG-16 has 14,724,042. Without batch norm, as the paper has it, the
    convolutions keep their biases: 9,225,610 and 14,719,818.

    Args:
        depth: 11 or 16, layers with weights as the paper counts them.
        norm: batch norm after each convolution.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, depth: int = 16, norm: bool = True) -> None:
        super().__init__()
        at_least(4, shape, f"vgg{depth}" if norm else f"vgg{depth}-plain")
        if depth not in _PLANS:
            raise BadInput("depth", depth, "choose one of 11, 16")
        widths = [width for stage in _PLANS[depth] for width in stage]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, width, 3, padding=1, bias=not norm)
            for before, width in zip([shape[0], *widths], widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) if norm else nn.Identity() for width in widths)
        ends = [sum(map(len, _PLANS[depth][: stage + 1])) - 1 for stage in range(5)]
        self.pooled = set(ends[: min(5, min(shape[1:]).bit_length() - 1)])
        self.out = nn.Linear(512, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = torch.relu(norm(conv(x)))
            if index in self.pooled:
                x = max_pool2d(x, 2)
        logits: Tensor = self.out(x.mean((2, 3)))
        return logits
