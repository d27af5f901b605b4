"""Parameter shapes of known networks: what an optimizer's step works on, without the networks themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]


def resnet20() -> list[Shape]:
    """CIFAR ResNet-20 with identity shortcuts (He et al. 2015): 59 tensors and 269,722 parameters."""
    shapes: list[Shape] = [(16, 3, 3, 3), (16,), (16,)]
    inside = 16
    for width in (16, 32, 64):
        for _ in range(3):
            shapes += [(width, inside, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            inside = width
    return [*shapes, (10, 64), (10,)]


def wrn28_10() -> list[Shape]:
    """WRN-28-10 for CIFAR-10 (Zagoruyko and Komodakis 2016): 36,479,194 parameters."""
    shapes: list[Shape] = [(16, 3, 3, 3)]
    inside = 16
    for width in (160, 320, 640):
        for block in range(4):
            shapes += [(inside,), (inside,), (width, inside, 3, 3), (width,), (width,), (width, width, 3, 3)]
            if block == 0:
                shapes.append((width, inside, 1, 1))
            inside = width
    return [*shapes, (640,), (640,), (10, 640), (10,)]


def transformer(layers: int, width: int, embeddings: list[Shape], head: list[Shape]) -> list[Shape]:
    """A transformer encoder or decoder: embeddings, `layers` blocks of 12 tensors, a final norm and a head."""
    block: list[Shape] = [
        *((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)),
        *((width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,)),
    ]
    return [*embeddings, *block * layers, (width,), (width,), *head]


def gpt2() -> list[Shape]:
    """GPT-2 small (Radford et al. 2019), output layer tied: 148 tensors, 124,439,808 parameters."""
    return transformer(12, 768, [(50257, 768), (1024, 768)], [])


def vit_s() -> list[Shape]:
    """ViT-S/16 for 1000 classes (Touvron et al. 2021): 22,050,664 parameters."""
    start: list[Shape] = [(1, 1, 384), (1, 197, 384), (384, 3, 16, 16), (384,)]
    return transformer(12, 384, start, [(1000, 384), (1000,)])


SETS: dict[str, Callable[[], list[Shape]]] = {"resnet20": resnet20, "vit_s": vit_s, "wrn28_10": wrn28_10, "gpt2": gpt2}


def count(shapes: list[Shape]) -> int:
    """Number of parameters."""
    return sum(math.prod(s) for s in shapes)
