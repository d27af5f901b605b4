"""Models by name; every one takes the shape of the images and the number of classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from fenland.lab.errors import BadInput, one_of
from fenland.lab.models.lenet import LeNet
from fenland.lab.models.mlp import MLP
from fenland.lab.models.resnet import ResNet

Shape = tuple[int, int, int]

# "-identity" is the original paper's shortcut without parameters; the usual reimplementations project.
MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "resnet20": partial(ResNet, depth=20),
    "resnet20-identity": partial(ResNet, depth=20, shortcut="identity"),
    "resnet56": partial(ResNet, depth=56),
    "resnet56-identity": partial(ResNet, depth=56, shortcut="identity"),
}


def build_model(name: str, shape: Shape, classes: int) -> nn.Module:
    """A freshly initialised model, drawn from torch's global generator.

    Args:
        name: a key of ``MODELS``.
        shape: channels, height and width of an image.
        classes: number of outputs.

    Raises:
        BadInput: the name is unknown, or the images are too small for the model.
    """
    check_model(name)
    return MODELS[name](shape, classes)


def check_model(name: str) -> None:
    """Refuse an unknown name.

    Raises:
        BadInput: naming those that exist.
    """
    if name not in MODELS:
        raise BadInput("model", name, one_of(MODELS))
