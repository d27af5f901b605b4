"""Folders of image files: SPLIT/CLASS/."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import png, write_tree
from PIL import Image

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput

CLASSES = {"train": {"dog": 3, "cat": 4}, "test": {"cat": 1, "dog": 2}}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    write_tree(tmp_path / "set", CLASSES)
    return tmp_path / "set"


def config(folder: Path, test_split: str = "") -> RunConfig:
    return data.identify(RunConfig(str(folder), "mlp", "sgd", test_split=test_split))


def load(folder: Path, test_split: str = "") -> data.Images:
    return data.load(config(folder, test_split))


def test_images_are_those_of_the_files_and_classes_those_of_the_folders(tree: Path) -> None:
    images = load(tree)
    assert images.classes == ("cat", "dog")
    assert images.train_labels.tolist() == [0] * 4 + [1] * 3
    assert images.test_labels.tolist() == [0, 1, 1]
    for row, name in enumerate(["cat/0", "cat/1", "cat/2", "cat/3", "dog/0", "dog/1", "dog/2"]):
        wanted = np.asarray(Image.open(tree / "train" / f"{name}.png"))
        np.testing.assert_array_equal(images.train[row].transpose(1, 2, 0), wanted)


def test_a_class_that_the_test_split_lacks_keeps_the_others_numbers(tree: Path) -> None:
    shutil.rmtree(tree / "test" / "cat")
    assert load(tree).test_labels.tolist() == [1, 1]


def test_images_may_lie_deeper_with_notes_beside_them(tree: Path) -> None:
    before = load(tree)
    (tree / "train" / "cat" / "images").mkdir()
    for file in sorted((tree / "train" / "cat").glob("*.png")):
        file.rename(file.parent / "images" / file.name)
    (tree / "train" / "cat" / "cat_boxes.txt").write_text("0 0 8 8\n")
    (tree / "train" / ".DS_Store").write_bytes(b"\0")
    np.testing.assert_array_equal(load(tree).train, before.train)


def test_identity_is_that_of_classes_and_contents(tree: Path, tmp_path: Path) -> None:
    first = config(tree).data_id
    copy = shutil.copytree(tree, tmp_path / "copy")
    assert config(copy).data_id == first
    (copy / "train" / "dog").rename(copy / "train" / "eel")
    (copy / "test" / "dog").rename(copy / "test" / "eel")
    assert config(copy).data_id != first
    (tree / "test" / "cat" / "0.png").write_bytes(png(np.zeros((8, 8, 3), np.uint8)))
    assert config(tree).data_id != first


def test_val_is_a_split_and_another_one_a_choice(tree: Path) -> None:
    shutil.copytree(tree / "test" / "dog", tree / "val" / "dog")
    assert len(load(tree).test) == 3
    assert len(load(tree, "val").test) == 2
    shutil.rmtree(tree / "test")
    assert len(load(tree).test) == 2


def test_the_parquet_files_of_a_folder_come_first(tree: Path) -> None:
    from image_files import write_split

    write_split(tree / "train.parquet", 9)
    write_split(tree / "test.parquet", 5)
    assert len(load(tree).train) == 9


def extra(place: str, content: bytes = b"x") -> object:
    def spoil(tree: Path) -> None:
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_bytes(content)

    return spoil


SMALL = png(np.zeros((8, 7, 3), np.uint8))
BROKEN = {
    "a class of the test split alone": (
        extra("test/eel/0.png", SMALL),
        "set/test/eel: is no class of the train split, which has cat, dog; rename or remove it",
    ),
    "an empty class": (
        lambda tree: (tree / "train" / "eel").mkdir(),
        "set/train/eel: holds no image; add some, or rem",
    ),
    "an unknown kind of image": (
        extra("train/cat/0.heic"),
        "set/train/cat/0.heic: is no image that Pillow reads; convert it, or move it away",
    ),
    "no image inside": (extra("train/cat/9.jpg"), "set/train/cat/9.jpg: is not an image (cannot identify image file)"),
    "an image of no class": (extra("train/0.png", SMALL), "set/train/0.png: is in no class; put it into train/CLASS/"),
    "another size": (
        extra("train/cat/9.png", SMALL),
        "set/train/cat/9.png: is 8x7, the images before are 8x8; resize all to one size",
    ),
    "a link to nothing": (
        lambda tree: (tree / "train" / "cat" / "9.png").symlink_to("nowhere.png"),
        "set/train/cat/9.png: is no file, or a link to none; remove it, or put the file there",
    ),
    "a pipe": (
        lambda tree: os.mkfifo(tree / "train" / "cat" / "9.png"),
        "set/train/cat/9.png: is no file, or a link to none; remove it, or put the file there",
    ),
    "no files": (lambda tree: (shutil.rmtree(tree), tree.mkdir()), "set: holds no files; it needs train.parquet and"),
    "one class": (lambda tree: [shutil.rmtree(tree / split / "dog") for split in CLASSES], "one class only (cat)"),
    "no test split": (lambda tree: shutil.rmtree(tree / "test"), "has no test split, only train; add one named test"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_one_line_with_the_file(case: str, tree: Path) -> None:
    spoil, message = BROKEN[case]
    spoil(tree)
    with pytest.raises(BadInput) as caught:
        load(tree)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
