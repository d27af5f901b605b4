"""One encoded image as bytes, or the reason why it cannot be one without guessing."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fenland.lab.data.images import Bytes
from fenland.lab.data.source import Encoded, first_line

_GREY = ("1", "L")
_MORE_BITS = ("I", "F")  # with whatever follows, as in I;16
_ORIENTATION = 0x0112  # of EXIF; from 5 on, width and height change places
MOST = 89_478_485  # pixels of one image, Pillow's own limit against decompression bombs


class Unusable(ValueError):
    """An image that cannot be used: why, and what to do."""


def header(encoded: Encoded) -> tuple[str, tuple[int, int]]:
    """Mode and (width, height) of an image as it is seen, upright; its pixels are not decoded."""
    with _opened(encoded) as picture:
        width, height = picture.size
        turned = _orientation(picture) >= 5
        return _mode(picture), (height, width) if turned else (width, height)


def decode(encoded: Encoded) -> Bytes:
    """The pixels of an image, upright: shape (height, width) of a grey one, (height, width, 3) of a colour one.

    Raises:
        Unusable: there is no image, it is broken, or bytes would not hold it: more than 8 bits a channel, pixels that
            one can see through, several frames.
    """
    from PIL import Image, ImageOps

    with _opened(encoded) as picture:
        _check(picture)
        try:
            upright = ImageOps.exif_transpose(picture)
            if upright.has_transparency_data:
                upright = _opaque(upright)
            converted: Image.Image = upright.convert("L" if upright.mode in _GREY or upright.mode == "LA" else "RGB")
            return np.asarray(converted, dtype=np.uint8)
        except Unusable:
            raise
        except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
            raise Unusable(f"is a broken image ({first_line(error)}); replace it") from None


def _opened(encoded: Encoded) -> Any:
    from PIL import Image

    if encoded is None:
        raise Unusable("has no image; add it, or drop the row")
    if isinstance(encoded, Path) and not encoded.is_file():
        raise Unusable(no_file(encoded))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # has its own error here, see _check
        try:
            return Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
        except Image.DecompressionBombError:
            raise Unusable(f"has more than {2 * MOST} pixels; resize it") from None
        except Exception as error:  # as above
            raise Unusable(f"is not an image ({_without_object(error)}); replace it") from None


def no_file(path: Path) -> str:
    """What is wrong with a row that names this path."""
    return f"names {str(path)!r}, which is no file; give paths relative to the parquet file"


def _without_object(error: Exception) -> str:
    """Pillow's text without the stream or the file that it could not read."""
    return first_line(error).partition(" <_io")[0].partition(" '/")[0]


def _check(picture: Any) -> None:
    width, height = picture.size
    if width * height > MOST:
        raise Unusable(f"is {height}x{width}; resize it, {MOST} pixels are the most")
    mode = _mode(picture)
    if mode.startswith(_MORE_BITS) or ";16" in mode:
        raise Unusable(f"has more than 8 bits a channel (mode {mode}); scale it to 0 to 255 and save it with 8 bits")
    if picture.mode in ("LAB", "HSV"):
        raise Unusable(f"has mode {picture.mode}; save it as RGB")
    frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # MPO: a photo with a preview
    if frames > 1:
        raise Unusable(f"has {frames} frames; save one of them")


def _mode(picture: Any) -> str:
    """Pillow's mode; with its raw one where that has 16 bits, of which Pillow's reader keeps 8 and says nothing."""
    mode: str = picture.mode
    raw = next((str(tile[-1]) for tile in picture.tile if "16" in str(tile[-1])), "")
    return f"{mode};16" if raw and ";16" not in mode and not mode.startswith(_MORE_BITS) else mode


def _orientation(picture: Any) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF is no reason to refuse the image: it is taken as it lies
        return 1


def _opaque(picture: Any) -> Any:
    """The picture without its alpha channel, which may hide nothing."""
    alpha = picture.convert("RGBA").getchannel("A")
    if alpha.getextrema()[0] < 255:
        raise Unusable("has transparent pixels; flatten it onto a background")
    return picture.convert("L" if picture.mode in ("L", "LA") else "RGB")
