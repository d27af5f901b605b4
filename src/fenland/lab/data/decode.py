"""From encoded images in the hub's schema to arrays of bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow

from fenland.lab.data.images import Bytes, Images, Labels
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    import datasets

_IMAGE_COLUMNS = ("image", "img")
# CIFAR-100 on the hub names its hundred classes fine_label.
_LABEL_COLUMNS = ("label", "fine_label", "labels")


def columns(schema: pyarrow.Schema, argument: str, value: object) -> tuple[str, str]:
    """The image and the label column, after a check of what they hold.

    Raises:
        BadInput: one is missing or has another type.
    """
    chosen = []
    for wanted in (_IMAGE_COLUMNS, _LABEL_COLUMNS):
        match = [name for name in wanted if name in schema.names]
        if not match:
            found = ", ".join(schema.names) or "(none)"
            cure = f"has the columns {found}; it needs one named {' or '.join(wanted[:2])}"
            raise BadInput(argument, value, cure)
        chosen.append(match[0])
    image, label = chosen
    kind = schema.field(image).type
    if not pyarrow.types.is_struct(kind) or "bytes" not in {field.name for field in kind}:
        raise BadInput(argument, value, f"column {image} is {kind}; it must be a struct with encoded image bytes")
    kind = schema.field(label).type
    if not pyarrow.types.is_integer(kind):
        raise BadInput(argument, value, f"column {label} is {kind}; it must hold integer classes")
    return image, label


def images(name: str, train: datasets.Dataset, test: datasets.Dataset, argument: str, value: object) -> Images:
    """Decode both splits and check that they fit each other."""
    reader = _Reader(argument, value)
    train_images, train_labels = reader.read(train, "train")
    test_images, test_labels = reader.read(test, "test")
    classes = reader.classes(train, train_labels, test_labels)
    return Images(name, train_images, train_labels, test_images, test_labels, classes)


class _Reader:
    """Decodes splits of one data set: all images in the mode and the size of the first."""

    def __init__(self, argument: str, value: object) -> None:
        self._argument = argument
        self._value = value
        self._mode = ""
        self._size = (0, 0)

    def read(self, split: datasets.Dataset, which: str) -> tuple[Bytes, Labels]:
        if len(split) == 0:
            raise self._bad(f"its {which} split is empty")
        image, label = columns(split.data.schema, self._argument, self._value)
        labels = split.data.column(label)
        if labels.null_count:
            raise self._bad(f"its {which} split has {labels.null_count} rows without a {label}")
        return self._decode(_encoded(split, image), len(split), which), labels.to_numpy().astype(np.int64)

    def _decode(self, encoded: Iterator[Any], count: int, which: str) -> Bytes:
        decoded: Bytes | None = None
        for row, cell in enumerate(encoded):
            pixels = self._pixels(cell, row, which)
            if decoded is None:
                decoded = np.empty((count, *pixels.shape), np.uint8)
            decoded[row] = pixels
        # read() has refused an empty split, so there was a first image.
        return decoded if decoded is not None else np.empty((0, 0, 0, 0), np.uint8)

    def _pixels(self, cell: Any, row: int, which: str) -> Bytes:
        from PIL import Image, UnidentifiedImageError

        try:
            source = io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"] or io.BytesIO()
            with Image.open(source) as picture:
                self._mode = self._mode or ("L" if picture.mode in ("1", "L") else "RGB")
                self._size = self._size if any(self._size) else picture.size
                if picture.size != self._size:
                    raise self._bad(_sizes(picture.size, row, which, self._size))
                pixels = np.asarray(picture.convert(self._mode), dtype=np.uint8)
        except (UnidentifiedImageError, OSError, TypeError, SyntaxError) as error:
            raise self._bad(f"row {row} of its {which} split is not an image ({first_line(error)})") from None
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def classes(self, train: datasets.Dataset, *labels: Labels) -> tuple[str, ...]:
        low, high = int(min(split.min() for split in labels)), int(max(split.max() for split in labels))
        _, label = columns(train.data.schema, self._argument, self._value)
        names = getattr(train.features[label], "names", None) or [str(number) for number in range(high + 1)]
        if low < 0 or high >= len(names) or len(names) < 2:
            raise self._bad(f"its labels are {low} to {high}; they must be class numbers from 0 to {len(names) - 1}")
        return tuple(names)

    def _bad(self, cure: str) -> BadInput:
        return BadInput(self._argument, self._value, cure)


def _sizes(size: tuple[int, int], row: int, which: str, first: tuple[int, int]) -> str:
    found, expected = (f"{height}x{width}" for width, height in (size, first))
    return f"row {row} of its {which} split is {found}, the images before are {expected}; resize all to one size"


def _encoded(split: datasets.Dataset, column: str) -> Iterator[Any]:
    import datasets

    if isinstance(split.features[column], datasets.Image):
        split = split.cast_column(column, datasets.Image(decode=False))
    for chunk in split.data.column(column).chunks:
        for cell in chunk:
            yield cell.as_py()


@contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Silence the library's log and, unless something is downloaded, its progress bars."""
    import datasets

    level = datasets.logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not progress:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to what fits on a terminal's line."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
