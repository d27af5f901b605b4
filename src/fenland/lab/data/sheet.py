"""Sixteen images of a decoded set on one sheet, each with its class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fenland.lab.data.images import Bytes, Images, stratified
from fenland.lab.store.files import writing

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS, ROWS = 4, 2  # of the train set, and as many of the test set
_SIDE, _GAP, _TEXT = 128, 12, 18  # pixels of a tile's longer side, between tiles, and of a line of text


def write(images: Images, path: Path) -> None:
    """Write eight train and eight test images as a PNG, the same ones each time, chosen over all classes."""
    from PIL import Image as pillow
    from PIL import ImageDraw

    height = 2 * (_TEXT + ROWS * (_SIDE + _TEXT + _GAP)) + _GAP
    sheet = pillow.new("RGB", (COLUMNS * (_SIDE + _GAP) + _GAP, height), "white")
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    halves = {"train": (images.train, images.train_labels), "test": (images.test, images.test_labels)}
    for split, (stored, labels) in halves.items():
        pen.text((_GAP, top), f"{split}: {len(stored)} images", fill="black")
        top += _TEXT
        for place, row in enumerate(stratified(labels, COLUMNS * ROWS, seed=0)):
            left = _GAP + place % COLUMNS * (_SIDE + _GAP)
            upper = top + place // COLUMNS * (_SIDE + _TEXT + _GAP)
            sheet.paste(_tile(stored[row]), (left, upper))
            pen.text((left, upper + _SIDE + 2), f"{row}: {_short(images.classes[labels[row]])}", fill="black")
        top += ROWS * (_SIDE + _TEXT + _GAP)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        sheet.save(file, "PNG")


def _tile(image: Bytes) -> Image:
    """An image scaled to the tile's size; small ones keep their pixels visible."""
    from PIL import Image as pillow

    picture = pillow.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    scale = _SIDE / max(picture.size)
    size = tuple(max(1, round(scale * side)) for side in picture.size)
    way = pillow.Resampling.NEAREST if scale >= 1 else pillow.Resampling.LANCZOS
    return picture.resize((size[0], size[1]), way)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "..."
