"""Models by name; every one takes the shape of the images and the number of classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from fenland.lab.errors import BadInput, meant, one_of
from fenland.lab.models import pretrained, resnet18, wrn
from fenland.lab.models.convnet import ConvNet
from fenland.lab.models.lenet import LeNet
from fenland.lab.models.mlp import MLP
from fenland.lab.models.pyramidnet import PyramidNet
from fenland.lab.models.resnet import ResNet
from fenland.lab.models.resnext import ResNeXt
from fenland.lab.models.vgg import VGG
from fenland.lab.models.vit import ViT

Shape = tuple[int, int, int]
OTHERS = "any wrnD-K, or for texts a hub name or a folder"

# "-identity" is the original paper's shortcut without parameters; the usual reimplementations project. "-plain" has no
# batch norm, "-group" group norm.
# Any other "wrnD-K" is built too: D = 6n+4 layers, K times as wide.
MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "convnet": ConvNet,
    "resnet18": partial(resnet18.ResNet18, norm="batch"),
    "resnet18-group": partial(resnet18.ResNet18, norm="group"),
    "resnet18-plain": partial(resnet18.ResNet18, norm="none"),
    "resnet20": partial(ResNet, depth=20),
    "resnet20-identity": partial(ResNet, depth=20, shortcut="identity"),
    "resnet56": partial(ResNet, depth=56),
    "resnet56-identity": partial(ResNet, depth=56, shortcut="identity"),
    "wrn16-10": partial(wrn.WRN, depth=16, widen=10),
    "wrn28-10": partial(wrn.WRN, depth=28, widen=10),
    "pyramidnet20-a48": partial(PyramidNet, depth=20, alpha=48),
    "pyramidnet110-a48": partial(PyramidNet, depth=110, alpha=48),
    "resnext29-32x4d": partial(ResNeXt, depth=29, groups=32, width=4),
    "vgg11": partial(VGG, depth=11),
    "vgg16": partial(VGG, depth=16),
    "vgg11-plain": partial(VGG, depth=11, norm=False),
    "vgg16-plain": partial(VGG, depth=16, norm=False),
    "vit": ViT,
}


def build_model(name: str, shape: Shape, classes: int) -> nn.Module:
    """A freshly initialised model, drawn from torch's global generator.

    Args:
        name: a key of ``MODELS``, or ``wrnD-K`` for a wide residual network of D = 6n+4 layers, K times as wide.
        shape: channels, height and width of an image.
        classes: number of outputs.

    Raises:
        BadInput: the name is unknown, or the images are too small for the model.
    """
    return _maker(name)(shape, classes)


def check_model(name: str) -> None:
    """Refuse an unknown name; what is named like a pre-trained model is looked up when it is loaded."""
    if not pretrained.named(name):
        _maker(name)


def _maker(name: str) -> Callable[[Shape, int], nn.Module]:
    if name in MODELS:
        return MODELS[name]
    parsed = wrn.parse(name)
    if parsed is None:
        raise BadInput("model", name, f"{one_of(MODELS)}, {OTHERS}{meant(name, MODELS)}")
    return partial(wrn.WRN, depth=parsed[0], widen=parsed[1])
