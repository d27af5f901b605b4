"""A multilayer perceptron."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Flattened pixels, two hidden layers of 256 with ReLU, then the classes.

    Args:
        shape: channels, height and width of an image.
        hidden: width of each hidden layer.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, hidden: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        widths = (math.prod(shape), *hidden)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, hidden, strict=False))
        self.out = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        logits: Tensor = self.out(x)
        return logits
