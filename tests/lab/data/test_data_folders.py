"""Which files of a folder make which split: missing parts, several sets, names, other kinds of folders."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pytest
from image_files import png, write_split, write_tree
from pyarrow import parquet

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.data.folder import find
from fenland.lab.errors import BadInput


def config(folder: Path | str, test_split: str = "") -> RunConfig:
    return data.identify(RunConfig(str(folder), "mlp", "sgd", test_split=test_split))


def load(folder: Path | str, test_split: str = "") -> data.Images:
    return data.load(config(folder, test_split))


def write(folder: Path, *names: str) -> None:
    """Parquet files of 4, 5, 6, ... images."""
    for count, name in enumerate(names, start=4):
        write_split(folder / name, count)


# Files, and how many train and test images they are.
WHOLE = {
    ("train-00000-of-00002", "train-00001-of-00002", "test"): (9, 6),
    ("train-00000-of-00001-0123456789abcdef", "test-00000-of-00001-fedcba9876543210"): (4, 5),
    ("data/train", "data/test"): (4, 5),
    ("data/train", "validation/0000"): (4, 5),
    ("train/0000", "train/0001", "test/0000"): (9, 6),
    ("train/part-1", "train/part-2", "test/part-1"): (9, 6),
    ("train/20240131", "train/20240201", "test/x"): (9, 6),
    ("Train", "TEST"): (4, 5),
    ("training", "testing"): (4, 5),
    ("train_small", "test"): (4, 5),
    ("train2017", "val2017"): (4, 5),
    ("train", "val"): (4, 5),
    ("train", "dev"): (4, 5),
    ("train", "test", "validation"): (4, 5),
    ("train", "test", "unsupervised", "trainer", "tests_of_mine"): (4, 5),
}


@pytest.mark.parametrize("files", WHOLE, ids=" ".join)
def test_the_files_of_a_split_are_found(files: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "set", *(f"{name}.parquet" for name in files))
    images = load(tmp_path / "set")
    assert (len(images.train), len(images.test)) == WHOLE[files]


REFUSED = {
    ("train-00000-of-00002", "test"): "train-00000-of-00002.parquet: is one of 2 files, and number 1 is missing; down",
    ("train-00001-of-00003", "test"): "is one of 3 files, and numbers 0, 2 are missing; download the rest",
    ("train", "test-00001-of-00002"): "test-00001-of-00002.parquet: is one of 2 files, and number 0 is missing",
    ("train-0", "train-2", "test"): "is a numbered file, and number 1 is missing",
    ("train/0000", "train/0003", "test"): "is a numbered file, and numbers 1, 2 are missing",
    ("train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002", "test"): "parts of different downloads",
    ("train", "train-00000-of-00001", "test"): "train-00000-of-00001.parquet and train.parquet are parts of different",
    ("a/train", "a/test", "b/train", "b/test"): "holds 2 data sets, in a/ and b/; give one of them alone",
    ("a/train", "b/test"): "holds 2 data sets, in a/ and b/; give one of them alone",
    ("train/a/0", "train/b/0", "test/a/0", "test/b/0"): "holds 2 data sets, in a/ and b/",
    ("train", "test", "old/train"): "holds 2 data sets, in the folder itself and old/",
    ("train", "train_extra", "test"): "has 2 train splits, train and train_extra; keep one of them there",
    ("train", "test_easy", "test_hard"): "has test_easy and test_hard; choose one to test on, as in --test-split test_",
    ("train", "val", "dev"): "has dev and val; choose one to test on, as in --test-split dev",
    ("test", "validation"): "has no train split, only test, validation; name one train",
    ("train",): "has no test split, only train; add one named test or validation",
    ("first", "second"): "has no split in it, only first.parquet, second.parquet; it needs train.parquet and",
}


@pytest.mark.parametrize("files", REFUSED, ids=" ".join)
def test_what_leaves_the_split_open_is_refused(files: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "set", *(f"{name}.parquet" for name in files))
    with pytest.raises(BadInput) as caught:
        load(tmp_path / "set")
    assert REFUSED[files] in str(caught.value)
    assert str(caught.value).startswith(f"data={tmp_path / 'set'}")


def test_the_test_split_is_a_choice(tiny: Path) -> None:
    write_split(tiny / "validation.parquet", 7)
    write_split(tiny / "test_hard.parquet", 9)
    assert len(load(tiny, "validation").test) == 7
    assert len(load(tiny, "test_hard").test) == 9
    assert config(tiny, "test").hash != config(tiny, "validation").hash
    for wanted in ("exam", "train"):
        with pytest.raises(BadInput, match=f"^test-split={wanted}: .* has the splits .*; choose one of"):
            load(tiny, wanted)


def test_naming_the_test_split_that_is_taken_anyway_is_the_same_run(tiny: Path) -> None:
    assert config(tiny, "test").hash == config(tiny).hash


def test_hidden_files_and_those_of_archives_are_left_alone(tiny: Path) -> None:
    before = config(tiny).data_id
    (tiny / "._train.parquet").write_bytes(b"\0\5\26\7 resource fork")
    (tiny / "__MACOSX").mkdir()
    (tiny / "__MACOSX" / "test.parquet").write_bytes(b"\0\5\26\7")
    (tiny / ".cache").mkdir()
    shutil.copy(tiny / "train.parquet", tiny / ".cache")
    assert config(tiny).data_id == before
    assert len(load(tiny).train) == 40


def test_a_link_that_leads_back_is_followed_once(tiny: Path) -> None:
    (tiny / "again").symlink_to(tiny)
    assert len(load(tiny).train) == 40


def test_other_columns_may_differ_but_not_the_two_that_count(tiny: Path) -> None:
    (tiny / "train.parquet").unlink()
    first = write_split(tiny / "train-0.parquet", 6)
    second = write_split(tiny / "train-1.parquet", 8, extra={"score": [1.5] * 8})
    np.testing.assert_array_equal(load(tiny).train[:, 0], np.concatenate([first, second]))
    write_split(tiny / "train-1.parquet", 8, columns=("img", "label"))
    with pytest.raises(BadInput, match=r"train-1.parquet: has the columns img and label, train-0.parquet image and la"):
        load(tiny)


def twice(names: list[str]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        table = parquet.read_table(file)
        columns = [table.column(0), table.column(1), table.column(1 if "label" in names[2] else 0)]
        parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), file)

    return spoil


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["image", "label", "label"], "has column label 2 times; it must be clear which one counts, keep one"),
        (["image", "label", "image"], "has column image 2 times"),
        (["image", "label", "img"], "has the columns image and img; it must be clear which one counts, keep one"),
        (["image", "label", "fine_label"], "has the columns label and fine_label"),
    ],
)
def test_two_columns_that_could_count_are_refused(names: list[str], message: str, tiny: Path) -> None:
    twice(names)(tiny / "train.parquet")
    with pytest.raises(BadInput, match=message):
        load(tiny)


def by_path(folder: Path, absolute: bool = False) -> np.ndarray:
    """A train split whose images lie in files beside it."""
    pixels = np.random.default_rng(3).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    (folder / "images").mkdir()
    for number, image in enumerate(pixels):
        (folder / "images" / f"{number}.png").write_bytes(png(image))
    base = f"{folder}/" if absolute else ""
    cells = [{"bytes": None, "path": f"{base}images/{number}.png"} for number in range(6)]
    write_split(folder / "train.parquet", 6, cells=cells, labels=[0, 1, 2, 3, 0, 1])
    return pixels


@pytest.mark.parametrize("absolute", [False, True])
def test_images_by_path_lie_beside_their_parquet_file(
    absolute: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = by_path(tiny, absolute)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load(tiny).train[:, 0], pixels)


def test_images_by_path_are_part_of_the_identity(tiny: Path, tmp_path: Path) -> None:
    pixels = by_path(tiny)
    first = config(tiny)
    data.load(first)
    copy = shutil.copytree(tiny, tmp_path / "copy")
    assert config(copy).data_id == first.data_id
    (tiny / "images" / "2.png").write_bytes(png(pixels[2] ^ 255))
    second = config(tiny)
    assert second.data_id != first.data_id
    np.testing.assert_array_equal(data.load(second).train[2, 0], pixels[2] ^ 255)


@pytest.mark.parametrize(
    "path", ["images/6.png", "images", "a\0b.png", "https://example.org/a.png", os.devnull, "pipe"]
)
def test_a_path_that_leads_to_no_file_is_named_with_its_row(path: str, tiny: Path) -> None:
    """Nothing there, a folder, no path at all, and what could be read for ever."""
    by_path(tiny)
    os.mkfifo(tiny / "pipe")
    cells = [{"bytes": None, "path": each} for each in ("images/0.png", "images/1.png", path)]
    write_split(tiny / "train.parquet", 3, cells=cells)
    with pytest.raises(BadInput) as caught:
        config(tiny)
    named = (
        f"row 2, column image: names {str(tiny / path)!r}, which is no file; give paths relative to the parquet file"
    )
    assert str(caught.value) == f"data={tiny / 'train.parquet'}: {named}"


def test_bytes_without_a_path_field(tiny: Path) -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary())])
    write_split(tiny / "train.parquet", 4, cells=[{"bytes": None}] * 4, kind=kind)
    with pytest.raises(BadInput, match=r"train.parquet: row 0, column image: has no image; add it, or drop the row"):
        load(tiny)


def saved(folder: Path) -> None:
    (folder / "train").mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    (folder / "train" / "state.json").write_text("{}")
    (folder / "train" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")


def test_what_save_to_disk_writes_is_what_the_case_below_has(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict({"label": [1]})
    datasets.DatasetDict(train=table, test=table).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(BadInput, match="was written by save_to_disk"):
        load(tmp_path / "set")


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "save_to_disk": (saved, "was written by save_to_disk, which is not read here; convert each split, as in datasets."),
    "CSV": (
        lambda folder: [(folder / f"{name}.csv").write_text("label\n") for name in ("train", "test")],
        "holds tables of text (test.csv, train.csv); convert each split to parquet: it needs train.parquet",
    ),
    "classes without splits": (
        lambda folder: write_tree(folder.parent, {"set": {"cat": 2, "dog": 2}}),
        "has no split in it, only the folders cat, dog; it needs",
    ),
    "images without classes": (
        lambda folder: write_tree(folder.parent, {"set": {"train": 2, "test": 2}}),
        "has no parquet files and no images in classes in test, train; it needs",
    ),
    "arrays": (
        lambda folder: (folder / "train.npz").write_bytes(b"PK"),
        "has no split in it, only train.npz; it needs",
    ),
    "nothing": (lambda folder: None, "holds no files; it needs"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_kinds_of_folders_are_named(case: str, tmp_path: Path) -> None:
    build, message = OTHERS[case]
    if "classes" not in case:
        (tmp_path / "set").mkdir()
    build(tmp_path / "set")
    with pytest.raises(BadInput) as caught:
        load(tmp_path / "set")
    assert message in str(caught.value)


def test_a_folder_is_known_however_it_is_written(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setenv("HOME", str(tiny.parent))
    hashes = {
        config(text).hash
        for text in (str(tiny), "tiny", "./tiny", "tiny/", "~/tiny", "../" + tiny.parent.name + "/tiny")
    }
    assert len(hashes) == 1
    with pytest.raises(BadInput, match=r"^data=tiny/train.parquet: is a file, not a directory"):
        config("tiny/train.parquet")


def test_a_folder_with_a_built_in_name_is_not_taken_for_it(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.rename(tiny.parent / "digits")
    monkeypatch.chdir(tiny.parent)
    assert config("digits").data_id == "scikit-learn"
    assert len(load("./digits").train) == 40


def test_a_folder_shaped_like_a_hub_name_is_the_folder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parents[1])
    assert config(f"{tiny.parent.name}/tiny").data == "local"
    assert config("owner/tiny").data_id == "hub:owner/tiny"


def test_files_of_no_split_are_listed(tiny: Path) -> None:
    write_split(tiny / "extra.parquet", 3)
    assert [file.name for file in find("data", tiny).layout.ignored] == ["extra.parquet"]
