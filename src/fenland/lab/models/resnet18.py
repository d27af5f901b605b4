"""ResNet-18 for small images: four stages of 64 to 512 filters behind a 3x3 convolution, its norm a switch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fenland.lab.errors import BadInput, one_of
from fenland.lab.models.parts import at_least, stages

GROUPS = 32  # of group norm, as its authors have them (Wu and He 2018, arXiv 1803.08494)
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(GROUPS, width),
    "none": lambda width: nn.Identity(),
}


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) as it is built for 32x32 images: no pooling at the start, stride 1.

    For CIFAR-10 it has 11,173,962 parameters with a norm, and 11,169,162 without one, its convolutions then with
    biases. Initial weights are torch's own, narrower than He's: without a norm eight blocks that add to their inputs
    would double the variance each.

    Args:
        norm: ``batch``, ``group`` (32 groups) or ``none``.

    Raises:
        BadInput: another norm, or the images are too small.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, norm: str = "batch") -> None:
        super().__init__()
        if norm not in NORMS:
            raise BadInput("norm", norm, one_of(NORMS))
        at_least(4, shape, "resnet18" + {"batch": "", "group": "-group", "none": "-plain"}[norm])
        self.stem = _convolution(shape[0], 64, 3, 1, norm)
        plan = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.stages = stages(_Block, plan, 2, norm)
        self.out = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.out(self.stages(torch.relu(self.stem(images))).mean((2, 3)))
        return logits


def _convolution(before: int, width: int, side: int, stride: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, side, stride, padding=side // 2, bias=norm == "none")
    return nn.Sequential(convolution, NORMS[norm](width))


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, projected where the shape changes."""

    def __init__(self, before: int, width: int, stride: int, norm: str) -> None:
        super().__init__()
        self.first = _convolution(before, width, 3, stride, norm)
        self.second = _convolution(width, width, 3, 1, norm)
        same = (before, stride) == (width, 1)
        self.shortcut = nn.Identity() if same else _convolution(before, width, 1, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))
