"""What several families share: the smallest image that they take, depths, stages, and He's initial weights.

Each is called with the shape of an image (channels, height, width) and the number of classes; images (batch, channels,
height, width) then give logits (batch, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from fenland.lab.errors import BadInput


def at_least(side: int, shape: tuple[int, int, int], model: str) -> None:
    """Refuse images with a side below ``side`` pixels."""
    _, height, width = shape
    if min(height, width) < side:
        raise BadInput("model", model, f"needs images of at least {side}x{side}; these are {height}x{width}")


def repeats(depth: int, each: int, rest: int, such: str) -> int:
    """N of a depth each*n + rest; ``such`` are examples for the cure."""
    blocks, left = divmod(depth - rest, each)
    if left or blocks < 1:
        raise BadInput("depth", depth, f"give {each}n+{rest}, such as {such}")
    return blocks


def stages(block: Callable[..., nn.Module], plan: Sequence[Sequence[int]], count: int, *more: Any) -> nn.Sequential:
    """Stages of ``count`` blocks (before, ..., after, stride, *more); the first one changes width and size."""
    return nn.Sequential(*(
        block(after if index else before, *inner, after, 1 if index else stride, *more)
        for before, *inner, after, stride in plan
        for index in range(count)
    ))  # fmt: skip


def he_normal(model: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / fan_out) (He et al. 2015, arXiv:1502.01852, section 2.2), biases zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
