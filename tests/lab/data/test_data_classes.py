"""Class numbers and names: every number means one class, the same one in both splits."""

from pathlib import Path

import pytest
from image_files import write_split

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput

TRAIN, TEST = [0, 1, 2] * 4, [0, 1, 2, 1]


def load(folder: Path, test_split: str = "") -> data.Images:
    return data.load(data.identify(RunConfig(str(folder), "mlp", "sgd", test_split=test_split)))


def write(
    folder: Path,
    train: list[int] = TRAIN,
    test: list[int] = TEST,
    names: list[str] | None = None,
    test_names: list[str] | None = None,
) -> None:
    write_split(folder / "train.parquet", len(train), labels=train, names=names)
    write_split(folder / "test.parquet", len(test), labels=test, names=test_names)


PETS = ["cat", "dog", "eel"]
REFUSED = {
    "gaps": (
        {"train": [0, 5, 7, 1000] * 3},
        "train.parquet: row 1, column label: 5 is not one of 4 classes counted from 0; the labels are 0, 5, 7, 1000",
    ),
    "a huge number": ({"train": [0, 1, 999_999_999]}, "row 2, column label: 999999999 is not one of 3 classes"),
    "the largest number": ({"train": [0, 2**63 - 1]}, "row 1, column label: 9223372036854775807 is not one of 2"),
    "counted from 1": (
        {"train": [1, 2, 3] * 4, "test": [1, 2, 3]},
        "row 0, column label: its classes are numbered 1 to 3; subtract 1, they count from 0",
    ),
    "one class": ({"train": [0] * 6, "test": [0]}, "its train split has one class only (0); classification needs two"),
    "one class that is not 0": ({"train": [3] * 6, "test": [3]}, "its train split has one class only (3); classif"),
    "one class counted from 1": ({"train": [1] * 6, "test": [1]}, "its train split has one class only (1); classif"),
    "one name too few": (
        {"train": [0, 1], "test": [0], "names": ["a"]},
        "row 1, column label: 1 is no class number from 0 to 0; correct it",
    ),
    "one of two named": ({"train": [1] * 6, "test": [1], "names": ["a", "b"]}, "has one class only (b)"),
    "a class of the test split alone": (
        {"test": [0, 1, 3]},
        "test.parquet: row 2, column label: 3 is no class number from 0 to 2; correct it",
    ),
    "more than the names": (
        {"names": ["cat", "dog"], "test_names": ["cat", "dog"]},
        "train.parquet: row 2, column label: 2 is no class number from 0 to 1 (4 rows are outside); correct it",
    ),
    "another order": (
        {"names": PETS, "test_names": ["dog", "cat", "eel"]},
        "its test split has other class names: 0 is dog, in train it is cat; give both splits the same names",
    ),
    "fewer names": ({"names": PETS, "test_names": PETS[:2]}, "2 is nothing, in train it is eel"),
    "more names": ({"names": PETS, "test_names": [*PETS, "fox"]}, "3 is fox, in train it is nothing"),
    "some hidden": ({"test": [0, 1, -1, -1]}, "row 2, column label: -1 is no class (2 of 4 rows have none); label or"),
    "all hidden": ({"test": [-1, -1]}, "its test split has hidden labels (-1); test on a split with labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_numbers_that_leave_something_open_are_refused(case: str, tiny: Path) -> None:
    given, message = REFUSED[case]
    write(tiny, **given)
    with pytest.raises(BadInput) as caught:
        load(tiny)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_come_from_the_schema_and_a_class_may_be_rare(tiny: Path) -> None:
    write(tiny, train=[0, 2] * 5, test=[2], names=PETS, test_names=PETS)
    images = load(tiny)
    assert images.classes == tuple(PETS)
    assert images.train_labels.tolist() == [0, 2] * 5
    assert images.test_labels.tolist() == [2]


def test_a_split_without_names_has_those_of_the_other(tiny: Path) -> None:
    write(tiny, names=PETS)
    assert load(tiny).classes == tuple(PETS)


def test_files_of_one_split_that_name_classes_differently(tiny: Path) -> None:
    (tiny / "train.parquet").unlink()
    write_split(tiny / "train-0.parquet", 4, names=["a", "b", "c", "d"])
    write_split(tiny / "train-1.parquet", 4, names=["b", "a", "c", "d"])
    with pytest.raises(BadInput, match=r"train-1.parquet: its classes have other names than those of train-0.parquet"):
        load(tiny)


def test_hidden_test_labels_name_the_split_that_has_some(tiny: Path) -> None:
    write(tiny, test=[-1] * 5)
    write_split(tiny / "validation.parquet", 6, labels=[0, 1, 2] * 2)
    with pytest.raises(BadInput, match=r"hidden labels \(-1\); choose another one: --test-split validation$"):
        load(tiny)
    assert load(tiny, "validation").test_labels.tolist() == [0, 1, 2] * 2
