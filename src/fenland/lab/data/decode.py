"""From splits of encoded images to arrays of bytes."""

from __future__ import annotations

import os

import numpy as np

from fenland.lab.data import classes, pixels
from fenland.lab.data.images import Bytes, Images
from fenland.lab.data.source import Split
from fenland.lab.errors import BadInput

SHARE = 0.8  # of the machine's memory that the decoded images may take


def images(name: str, train: Split, test: Split, others: list[str]) -> Images:
    """Decode both splits: in grey where every image is, else in colour; all of one size, that of the first."""
    for split in (train, test):
        if not len(split.labels):
            raise split.bad("is empty; choose another, or download it again")
    names = classes.check(train, test, others)
    reader = _Reader()
    found = [reader.read(split) for split in (train, test)]
    if any(each.shape[1] == 3 for each in found):
        found = [_widened(each) for each in found]
    return Images(name, found[0], train.labels, found[1], test.labels, names)


class _Reader:
    """Decodes splits of one data set, one after the other."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._bytes = 0

    def read(self, split: Split) -> Bytes:
        decoded: Bytes | None = None
        count = len(split.labels)
        for row, encoded in enumerate(split.encoded()):
            try:
                image = pixels.decode(encoded)
            except pixels.Unusable as error:
                raise split.bad_row(row, split.image, str(error)) from None
            image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
            self._size = self._size or (image.shape[1], image.shape[2])
            if image.shape[1:] != self._size:
                raise self._other_size(split, row, image)
            if decoded is None:
                self._check_room(split, row, count * image.size)
                decoded = np.empty((count, *image.shape), np.uint8)
            if len(image) > decoded.shape[1]:
                self._check_room(split, row, 2 * count * len(image) * image[0].size)
                decoded = _widened(decoded)
            decoded[row] = image
        if decoded is None:
            raise split.bad("has no images")
        return decoded

    def _other_size(self, split: Split, row: int, image: Bytes) -> BadInput:
        found, wanted = ("x".join(map(str, size)) for size in (image.shape[1:], self._size or ()))
        return split.bad_row(row, split.image, f"is {found}, the images before are {wanted}; resize all to one size")

    def _check_room(self, split: Split, row: int, more: int) -> None:
        """Refuse what would not fit into memory, before it is asked for."""
        self._bytes += more
        memory = _memory()
        if self._bytes > SHARE * memory:
            size = "x".join(map(str, self._size or ()))
            need, have = (f"{each / 1e9:.1f} GB" for each in (self._bytes, memory))
            raise split.bad(
                f"has {len(split.labels)} images of {size}, which take {need} of this machine's {have}; resize them"
            )


def _widened(grey: Bytes) -> Bytes:
    """Grey images in three equal channels; colour ones as they are."""
    return np.repeat(grey, 3, axis=1) if grey.shape[1] == 1 else grey


def _memory() -> float:
    """Bytes of memory of this machine; no bound where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")
