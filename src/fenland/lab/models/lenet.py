"""LeNet-5 (LeCun et al. 1998), as it is built today: ReLU, max pooling, three dense layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from fenland.lab.models.parts import at_least


class LeNet(nn.Module):
    """Convolutions of 6 and 16 filters of 5x5, each pooled by 2, then 120, 84 and the classes.

    The first convolution pads images below 32 pixels by 2 (28x28: 61,706 parameters, the classic count). Images below
    28 pixels pad the second too, so that 8x8 digits leave 2x2 features; both sides are at least 4 pixels.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        at_least(4, shape, "lenet")
        first, second = (2 if min(height, width) < size else 0 for size in (32, 28))
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=first)
        self.conv2 = nn.Conv2d(6, 16, 5, padding=second)
        sides = [((side + 2 * first - 4) // 2 + 2 * second - 4) // 2 for side in (height, width)]
        self.fc1 = nn.Linear(16 * sides[0] * sides[1], 120)
        self.fc2 = nn.Linear(120, 84)
        self.out = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = max_pool2d(torch.relu(self.conv1(images)), 2)
        x = max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
        x = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        logits: Tensor = self.out(x)
        return logits
