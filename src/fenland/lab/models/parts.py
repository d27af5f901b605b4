"""What several families share: the smallest image that they take, and He's initial weights."""

from __future__ import annotations

from torch import nn

from fenland.lab.errors import BadInput


def at_least(side: int, shape: tuple[int, int, int], model: str) -> None:
    """Refuse images with a side below ``side`` pixels."""
    _, height, width = shape
    if min(height, width) < side:
        raise BadInput("model", model, f"needs images of at least {side}x{side}; these are {height}x{width}")


def he_normal(model: nn.Module) -> None:
    """Draw every convolution from N(0, 2 / fan_out) (He et al. 2015, arXiv:1502.01852, section 2.2), biases zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
