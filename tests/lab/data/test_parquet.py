"""Local parquet files: the real ones, and every way in which a small one can be wrong."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from image_files import png, write_split
from pyarrow import parquet

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.data import cache as caching
from fenland.lab.errors import BadInput


def config(folder: Path | str, name: str = "local") -> RunConfig:
    return (
        RunConfig(str(folder), "mlp", "sgd") if name == "local" else RunConfig(name, "mlp", "sgd", data_dir=str(folder))
    )


def load(folder: Path | str, name: str = "local") -> data.Images:
    return data.load(data.identify(config(folder, name)))


def test_pixels_come_back_exactly(tiny: Path) -> None:
    images = load(tiny)
    np.testing.assert_array_equal(images.train[:, 0], write_split(tiny / "again.parquet", 40))
    assert images.test.shape == (12, 1, 8, 8)
    assert images.train_labels.tolist() == [index % 4 for index in range(40)]
    assert images.classes == ("0", "1", "2", "3")


def test_colour_images_and_the_other_column_names(tmp_path: Path) -> None:
    pixels = write_split(tmp_path / "train.parquet", 10, (6, 9, 3), ("img", "fine_label"))
    write_split(tmp_path / "test.parquet", 10, (6, 9, 3), ("img", "fine_label"))
    np.testing.assert_array_equal(load(tmp_path).train, pixels.transpose(0, 3, 1, 2))


def test_the_hubs_folder_layouts(tmp_path: Path) -> None:
    write_split(tmp_path / "data" / "train-00000-of-00002.parquet", 8)
    write_split(tmp_path / "data" / "train-00001-of-00002.parquet", 12)
    write_split(tmp_path / "validation" / "0000.parquet", 6)
    images = load(tmp_path)
    assert len(images.train) == 20
    assert len(images.test) == 6


def test_identity_follows_the_content_not_the_place(tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    os.utime(copy / "train.parquet", (0, 0))
    first = data.identify(config(tiny))
    assert data.identify(config(copy)).hash == first.hash
    write_split(copy / "test.parquet", 13)
    assert data.identify(config(copy)).hash != first.hash


def test_a_change_after_planning_is_noticed(tiny: Path) -> None:
    planned = data.identify(config(tiny))
    write_split(tiny / "test.parquet", 14)
    with pytest.raises(BadInput, match=r"^data=.*the files changed since"):
        data.load(planned)


def change_schema(file: Path, **columns: pyarrow.Array) -> None:
    parquet.write_table(pyarrow.table(columns), file)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def scramble(file: Path) -> None:
    # The footer stays whole: only reading the pages can tell.
    content = bytearray(file.read_bytes())
    content[4:1500] = bytes(1496)
    file.write_bytes(content)


LABELS, CELL = [0, 1] * 5, {"bytes": png(np.zeros((8, 8), np.uint8)), "path": None}
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "corrupt or truncated parquet"),
    "text": (lambda file: file.write_text("hello"), "corrupt or truncated parquet"),
    "empty file": (lambda file: file.write_bytes(b""), "corrupt or truncated parquet"),
    "scrambled pages": (scramble, "corrupt parquet"),
    "no image": (
        lambda file: change_schema(file, x=pyarrow.array([1]), label=pyarrow.array([1])),
        "has the columns x, label; it needs one named image or img (images), or text",
    ),
    "no label": (
        lambda file: write_split(file, 10, columns=("image", "kind")),
        "has the columns image, kind; it needs one named label or fine_label",
    ),
    "images as text": (
        lambda file: change_schema(file, image=pyarrow.array(["a"]), label=pyarrow.array([1])),
        "column image is string; it must be a struct",
    ),
    "labels as text": (
        lambda file: change_schema(file, image=pyarrow.array([CELL]), label=pyarrow.array(["cat"])),
        "column label is string; it must hold integer classes",
    ),
    "two sizes": (
        lambda file: write_split(file, 10, cells=[CELL] * 9 + [{"bytes": png(np.zeros((8, 9), np.uint8))}]),
        "train.parquet: row 9, column image: is 8x9, the images before are 8x8; resize all to one size",
    ),
    "not an image": (
        lambda file: write_split(file, 10, cells=[CELL] * 3 + [{"bytes": b"GIF89a"}] + [CELL] * 6),
        "train.parquet: row 3, column image: is not an image (cannot identify image file); replace it",
    ),
    "no bytes": (
        lambda file: write_split(file, 10, cells=[{"bytes": None, "path": None}] * 10),
        "train.parquet: row 0, column image: has no image; add it, or drop the row",
    ),
    "hidden labels": (
        lambda file: write_split(file, 10, labels=[-1] * 10),
        "train.parquet: row 0, column label: -1 is no class (10 of 10 rows have none); label or drop them",
    ),
    "null labels": (
        lambda file: write_split(file, 10, labels=[None, *LABELS[1:]]),
        "train.parquet: row 0, column label: has no label (1 row has none); label or drop it",
    ),
    "labels as lists": (
        lambda file: change_schema(file, image=pyarrow.array([CELL]), label=pyarrow.array([[1, 2]])),
        "column label is list<element: int64>; it must hold integer classes",
    ),
    "labels as fractions": (
        lambda file: change_schema(file, image=pyarrow.array([CELL]), label=pyarrow.array([0.5])),
        "column label is double; it must hold integer classes",
    ),
    "images without bytes": (
        lambda file: change_schema(file, image=pyarrow.array([{"path": "a.png"}]), label=pyarrow.array([1])),
        "column image is struct<path: string>; it must be a struct with encoded image bytes",
    ),
    "no rows": (lambda file: write_split(file, 0), "its train split is empty"),
    "missing split": (lambda file: file.unlink(), "has no train split, only test; name one train"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_in_one_line(case: str, tiny: Path) -> None:
    spoil, message = BROKEN[case]
    spoil(tiny / "train.parquet")
    with pytest.raises(BadInput) as caught:
        load(tiny)
    assert str(caught.value).startswith(f"data={tiny}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tiny.parent / "cache").exists()


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^data=/no/such: no such directory; give the directory that holds train"):
        load("/no/such")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file, not a directory"):
        load(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("mnst", None, r"^data=mnst: choose one of digits, mnist, cifar10, cifar100, a hub name owner/name"),
        ("mnst", "/tmp", r"^data=mnst: choose one of"),
        ("a/b/c", None, r"^data=a/b/c: choose one of"),
        ("/b", None, r"^data=/b: no such directory"),
        ("digits", "/tmp", r"^data-dir=/tmp: digits come with scikit-learn"),
        ("local", None, r"^data=local: give the folder itself, as in --data DIR"),
    ],
)
def test_wrong_names_are_refused(name: str, folder: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        data.identify(RunConfig(name, "mlp", "sgd", data_dir=folder))


def test_the_wrong_size_for_a_known_set_is_refused(tiny: Path) -> None:
    message = "images are 8x8 with 1 channel, but cifar10 has 32x32 with 3 channels"
    with pytest.raises(BadInput, match=message):
        load(tiny, "cifar10")


def test_a_test_split_of_another_size_is_refused(tiny: Path) -> None:
    write_split(tiny / "test.parquet", 5, (9, 8))
    with pytest.raises(
        BadInput, match=r"test.parquet: row 0, column image: is 9x8, the images before are 8x8; resize all"
    ):
        load(tiny)


def test_the_cache_is_used_and_rebuilt_when_broken(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tiny)
    (file,) = (tiny.parent / "cache").iterdir()
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(load(tiny).train, first.train)
    file.write_bytes(content[:100])
    np.testing.assert_array_equal(load(tiny).train, first.train)

    from fenland.lab.data import decode

    monkeypatch.setattr(decode, "images", lambda *_: pytest.fail("decoded although cached"))
    np.testing.assert_array_equal(load(tiny).train, first.train)


def test_a_cache_that_cannot_be_written_is_done_without(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FENLAND_CACHE", "/proc/no")
    assert len(load(tiny).train) == 40


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FENLAND_CACHE")
    assert caching.directory() == Path.home() / ".cache" / "fenland"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "mean", "deviation"),
    [
        # The means and deviations that everybody normalises MNIST by.
        ("mnist", (1, 28, 28), (0.1307,), (0.3081,)),
        # CIFAR-10's are 0.4914, 0.4822, 0.4465 and 0.247, 0.243, 0.262; this copy went through JPEG.
        ("cifar10", (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.262)),
    ],
)
def test_real_data(
    name: str,
    shape: tuple[int, int, int],
    mean: tuple[float, ...],
    deviation: tuple[float, ...],
    real: Callable[[str], str],
) -> None:
    images = load(real(name), name)
    assert images.shape == shape
    assert len(images.test) == 10_000
    assert len(images.train) == {"mnist": 60_000, "cifar10": 50_000}[name]
    assert len(images.classes) == 10
    found = [[value / 255 for value in values] for values in images.statistics()]
    assert found[0] == pytest.approx(mean, abs=1e-3)
    assert found[1] == pytest.approx(deviation, abs=6e-3)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_one_line_or_an_image_set(seed: int, tiny: Path) -> None:
    """Flipped, zeroed and lost bytes anywhere in a file: whatever pyarrow or Pillow make of them, no traceback."""
    random = np.random.default_rng(seed)
    file = tiny / str(random.choice(["train.parquet", "test.parquet"]))
    content = bytearray(file.read_bytes())
    start = int(random.integers(len(content)))
    length = int(random.integers(1, 200))
    match seed % 4:
        case 0:
            content[start] ^= 1 << int(random.integers(8))
        case 1:
            content[start : start + length] = bytes(len(content[start : start + length]))
        case 2:
            del content[start : start + length]
        case 3:
            content[start : start + length] = random.bytes(len(content[start : start + length]))
    file.write_bytes(content)
    said, images = "", None
    try:
        images = load(tiny)
    except BadInput as error:
        said = str(error)
    assert "\n" not in said
    assert said.startswith(f"data={tiny}") or images is not None
    if images is not None:
        assert images.train.shape[1:] == images.test.shape[1:]
        assert set(images.train_labels) | set(images.test_labels) <= set(range(len(images.classes)))
