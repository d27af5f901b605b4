"""What one image may be: upright, in its own colours, and nothing that bytes would not hold."""

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import png, write_split
from PIL import Image

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.data import decode, pixels
from fenland.lab.errors import BadInput

RANDOM = np.random.default_rng(5)
GREY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def sixteen_bit_colour() -> bytes:
    """A PNG with 16 bits a channel, which Pillow cannot write: its header, one filtered row after another."""
    import struct
    import zlib

    rows = b"".join(b"\0" + bytes(range(24)) for _ in range(4))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def gif() -> bytes:
    frames = [Image.fromarray(GREY + shift) for shift in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def glass() -> bytes:
    picture = Image.fromarray(COLOUR).convert("RGBA")
    picture.putpixel((2, 3), (9, 9, 9, 254))
    return encoded(picture)


def see_through_palette() -> bytes:
    return encoded(Image.fromarray(GREY % 4).convert("P"), transparency=0)


DEEP = "has more than 8 bits a channel (mode {}); scale it to 0 to 255 and save it with 8 bits"
REFUSED = {
    "16-bit PNG": (encoded(Image.fromarray(GREY.astype(np.uint16) * 200)), DEEP.format("I;16")),
    "16-bit PNG whose values would fit": (encoded(Image.fromarray(GREY.astype(np.uint16))), DEEP.format("I;16")),
    "16-bit colour PNG": (sixteen_bit_colour(), DEEP.format("RGB;16")),
    "float TIFF": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), DEEP.format("F")),
    "32-bit TIFF": (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), DEEP.format("I")),
    "transparent": (glass(), "has transparent pixels; flatten it onto a background"),
    "transparent palette": (see_through_palette(), "has transparent pixels"),
    "animated": (gif(), "has 3 frames; save one of them"),
    "Lab": (encoded(Image.fromarray(COLOUR).convert("LAB"), "TIFF"), "has mode LAB; save it as RGB"),
    "huge": (encoded(Image.new("1", (14_000, 14_000))), "has more than 178956970 pixels; resize it"),
    "large": (encoded(Image.new("1", (10_000, 9_000))), "is 9000x10000; resize it, 89478485 pixels are the most"),
    "cut": (encoded(Image.fromarray(COLOUR))[:-60], "is a broken image"),
    "text": (b"hello", "is not an image (cannot identify image file); replace it"),
    "empty": (b"", "is not an image"),
    "none": (None, "has no image; add it, or drop the row"),
    "no file": (Path("/no/such.png"), "names '/no/such.png', which is no file"),
    "a folder": (Path("/tmp"), "names '/tmp', which is no file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_bytes_would_not_hold_is_refused(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(pixels.Unusable) as caught:
        pixels.decode(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)),
        (Image.fromarray(COLOUR).convert("RGBA"), COLOUR),
        (Image.fromarray(GREY).convert("LA"), GREY),
        (Image.fromarray(COLOUR).quantize(200), np.asarray(Image.fromarray(COLOUR).quantize(200).convert("RGB"))),
    ],
    ids=["grey", "colour", "black and white", "opaque alpha", "grey with alpha", "palette"],
)
def test_eight_bit_images_come_as_they_are(picture: Image.Image, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels.decode(encoded(picture)), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(orientation: int) -> None:
    """The eight orientations, written down as what undoes them (EXIF 2.3, tag 274)."""
    undone = {
        1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 3), 7: lambda x: np.rot90(x, 2).transpose(1, 0, 2), 8: np.rot90,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(COLOUR), exif=exif)
    wanted = undone[orientation](COLOUR)
    np.testing.assert_array_equal(pixels.decode(content), wanted)
    assert pixels.header(content) == ("RGB", (wanted.shape[1], wanted.shape[0]))


def load(folder: Path) -> data.Images:
    return data.load(data.identify(RunConfig(str(folder), "mlp", "sgd")))


def mixed(count: int, colours: set[int]) -> tuple[list[dict[str, bytes]], np.ndarray]:
    """Grey images, and colour ones at these rows; with what they are in colour."""
    wanted = RANDOM.integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
    for row in set(range(count)) - colours:
        wanted[row] = wanted[row, :, :, :1]
    cells = [png(image if row in colours else image[:, :, 0]) for row, image in enumerate(wanted)]
    return [{"bytes": cell, "path": None} for cell in cells], wanted.transpose(0, 3, 1, 2)


@pytest.mark.parametrize(("train", "test"), [({3}, set()), (set(range(1, 8)), {0}), (set(), {7}), ({7}, {7})], ids=str)
def test_one_colour_image_makes_a_colour_set(train: set[int], test: set[int], tiny: Path) -> None:
    halves = {"train": mixed(8, train), "test": mixed(8, test)}
    for split, (cells, _) in halves.items():
        write_split(tiny / f"{split}.parquet", 8, cells=cells)
    images = load(tiny)
    np.testing.assert_array_equal(images.train, halves["train"][1])
    np.testing.assert_array_equal(images.test, halves["test"][1])


def test_the_error_names_file_row_and_column(tiny: Path) -> None:
    cells = [{"bytes": png(GREY), "path": None}] * 3 + [{"bytes": REFUSED["animated"][0], "path": None}]
    write_split(tiny / "test.parquet", 4, cells=cells, columns=("img", "label"))
    write_split(tiny / "train.parquet", 8, (6, 9))
    with pytest.raises(BadInput) as caught:
        load(tiny)
    assert str(caught.value) == f"data={tiny / 'test.parquet'}: row 3, column img: has 3 frames; save one of them"


def test_more_than_the_memory_holds_is_refused_at_the_first_image(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "SHARE", 1e-9)
    with pytest.raises(BadInput, match=r"train split has 40 images of 8x8, which take .* of this machine's .* GB; res"):
        load(tiny)
