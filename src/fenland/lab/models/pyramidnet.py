"""PyramidNet (Han, Kim and Kim 2017, arXiv:1610.02915): residual blocks whose width grows by a constant step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from fenland.lab.errors import BadInput
from fenland.lab.models.parts import at_least, he_normal, repeats


class PyramidNet(nn.Module):
    """6n+2 layers: 16 filters, then 3n basic blocks; block k of N = 3n has 16 + alpha k / N filters, rounded.

    This is the paper's additive form. Its block is batch norm, convolution, batch norm, ReLU, convolution, batch norm:
    no ReLU before the first convolution or after the sum. Shortcuts have no parameters: where a stage halves the image
    they average 2x2 pixels, and new channels are zero. PyramidNet-110 with alpha 48 has 1,772,706 parameters for
    CIFAR-10.

    Args:
        depth: 6n+2 layers.
        alpha: filters added in all.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, depth: int = 110, alpha: int = 48) -> None:
        super().__init__()
        at_least(4, shape, f"pyramidnet{depth}-a{alpha}")
        blocks = repeats(depth, 6, 2, "20, 56 or 110")
        if alpha < 0:
            raise BadInput("alpha", alpha, "give a whole number >= 0")
        # Half up, in whole numbers: no rounding error may decide a width.
        total = 3 * blocks
        widths = [16 + (2 * alpha * k + total) // (2 * total) for k in range(total + 1)]
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(
            *(_Block(widths[k], widths[k + 1], 2 if k in (blocks, 2 * blocks) else 1) for k in range(total))
        )
        self.norm2 = nn.BatchNorm2d(widths[-1])
        self.out = nn.Linear(widths[-1], classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(self.norm1(self.conv(images)))
        logits: Tensor = self.out(torch.relu(self.norm2(x)).mean((2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = width - before
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.norm2(self.conv1(self.norm1(x)))))
        # Rounded up like the strided convolution, so that odd sides fit.
        skipped = avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        summed: Tensor = self.norm3(y) + pad(skipped, (0, 0, 0, 0, 0, self.extra))
        return summed
