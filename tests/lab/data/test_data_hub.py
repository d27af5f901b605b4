"""The hub's loader, fed with local files and sets in the hub's schemas: no network."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from image_files import png

from fenland.lab import data
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput

FINE = [f"thing {number}" for number in range(100)]
CIFAR100 = datasets.Features(
    img=datasets.Image(), fine_label=datasets.ClassLabel(names=FINE), coarse_label=datasets.ClassLabel(num_classes=20)
)


def load(name: str, folder: Path | None = None) -> data.Images:
    place = None if folder is None else str(folder)
    return data.load(data.identify(RunConfig(name, "mlp", "sgd", data_dir=place)))


def hundred(count: int, size: tuple[int, ...] = (32, 32, 3)) -> tuple[datasets.Dataset, np.ndarray]:
    """A split in the schema of the hub's CIFAR-100, and its pixels."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, *size), dtype=np.uint8)
    columns = {
        "img": [{"bytes": png(image), "path": None} for image in pixels],
        "fine_label": [99 - number % 100 for number in range(count)],
        "coarse_label": [number % 20 for number in range(count)],
    }
    return datasets.Dataset.from_dict(columns, CIFAR100), pixels


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers, without being asked."""
    monkeypatch.setattr("fenland.lab.huggingface.answers", lambda repository, kind: True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Makes the hub answer with a set of our own."""
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))

    def answer(found: object) -> None:
        monkeypatch.setattr(datasets, "load_dataset", lambda path, revision=None: found)

    return answer


def check_hundred(images: data.Images, pixels: np.ndarray) -> None:
    assert images.shape == (3, 32, 32)
    assert images.classes == tuple(FINE)
    assert images.train_labels.tolist() == [99 - number % 100 for number in range(120)]
    np.testing.assert_array_equal(images.train, pixels.transpose(0, 3, 1, 2))


def test_cifar100_has_its_fine_labels(hub: Callable[[object], None]) -> None:
    train, pixels = hundred(120)
    hub(datasets.DatasetDict(train=train, test=hundred(30)[0]))
    check_hundred(load("cifar100"), pixels)


def test_cifar100_from_a_local_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    train, pixels = hundred(120)
    train.to_parquet(tmp_path / "copy" / "train-00000-of-00001.parquet")
    hundred(30)[0].to_parquet(tmp_path / "copy" / "test-00000-of-00001.parquet")
    check_hundred(load("cifar100", tmp_path / "copy"), pixels)


def table(**columns: list[object]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


CELL = {"bytes": png(np.zeros((32, 32, 3), np.uint8)), "path": None}
# The train split, and what is said about it.
WRONG: dict[str, tuple[datasets.Dataset, str]] = {
    "no image": (
        table(x=[1], label=[1]),
        "has the columns x, label; it needs one named image or img (images), or text",
    ),
    "no label": (table(img=[CELL], kind=[1]), "has the columns img, kind; it needs one named label or fine_label"),
    "pixels": (table(img=[[1, 2]], label=[1]), "column img is list<item: int64>; it must be a struct with encoded"),
    "text": (table(img=[CELL], label=["cat"]), "column label is string; it must hold integer classes"),
    "fractions": (table(img=[CELL], label=[0.5]), "column label is double; it must hold integer classes"),
    "empty": (hundred(1)[0].select([]), "its train split is empty"),
    "small": (hundred(4, (16, 16, 3))[0], "row 0 of its test split, column img: is 32x32, the images before are 16x16"),
    "mixed": (
        datasets.concatenate_datasets([hundred(4)[0], hundred(1, (32, 31, 3))[0]]),
        "row 4 of its train split, column img: is 32x31, the images before are 32x32; resize all to one size",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_set_is_refused_in_one_line(case: str, hub: Callable[[object], None]) -> None:
    train, message = WRONG[case]
    hub(datasets.DatasetDict(train=train, test=hundred(30)[0]))
    with pytest.raises(BadInput) as caught:
        load("some/images")
    assert str(caught.value).startswith("data=some/images: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_that_is_not_the_sets_own_is_refused(hub: Callable[[object], None]) -> None:
    hub(datasets.DatasetDict(train=hundred(4, (16, 16, 3))[0], test=hundred(2, (16, 16, 3))[0]))
    with pytest.raises(BadInput, match=r"^data=cifar100: images are 16x16 with 3 channels, but cifar100 has 32x32"):
        load("cifar100")


def test_an_empty_test_split_is_refused(hub: Callable[[object], None]) -> None:
    hub(datasets.DatasetDict(train=hundred(4)[0], test=hundred(4)[0].select([])))
    with pytest.raises(BadInput, match="its test split is empty"):
        load("some/images")


def test_the_validation_split_stands_in_for_the_test_split(hub: Callable[[object], None]) -> None:
    hub(datasets.DatasetDict(train=hundred(100)[0], validation=hundred(7)[0]))
    assert len(load("some/images").test) == 7


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("train",), "has no test split, only train; add one named test or validation$"),
        (("test",), "has no train split, only test; name one train$"),
        (("train", "unsupervised"), "or choose: --test-split unsupervised$"),
        (("train", "dev", "val"), "has dev and val; choose one to test on, as in --test-split dev$"),
    ],
)
def test_a_missing_split_is_refused(splits: tuple[str, ...], message: str, hub: Callable[[object], None]) -> None:
    hub(datasets.DatasetDict({split: hundred(4)[0] for split in splits}))
    with pytest.raises(BadInput, match=message):
        load("some/images")


def test_the_chosen_test_split_is_part_of_the_identity(hub: Callable[[object], None]) -> None:
    hub(datasets.DatasetDict(train=hundred(100)[0], test=hundred(7)[0], validation=hundred(5)[0]))
    plain = RunConfig("some/images", "mlp", "sgd")
    chosen = data.identify(dataclasses.replace(plain, test_split="validation"))
    assert len(data.load(chosen).test) == 5
    assert len(data.load(data.identify(plain)).test) == 7
    assert chosen.data_id != data.identify(plain).data_id
    with pytest.raises(BadInput, match=r"^test-split=exam: some/images has the splits train, test, validation; choose"):
        data.load(dataclasses.replace(plain, test_split="exam"))


def test_hub_names_load_through_datasets(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def load_dataset(path: str, revision: str | None = None) -> datasets.DatasetDict:
        asked.append((path, revision))
        files = {split: str(tiny / f"{split}.parquet") for split in ("train", "test")}
        return original("parquet", data_files=files, cache_dir=str(tmp_path / "hub"))

    original = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("some/images", "some/images@abc"):
        images = data.load(data.identify(RunConfig(name, "mlp", "sgd")))
        assert images.train.shape == (40, 1, 8, 8)
    assert asked == [("some/images", None), ("some/images", "abc")]


@pytest.mark.parametrize("error", [ConnectionError("no network\nat all"), ValueError("Config name is missing")])
def test_a_hub_set_that_does_not_load_is_one_clear_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, revision: str | None = None) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    wanted = data.identify(RunConfig("cifar100", "mlp", "sgd"))
    with pytest.raises(
        BadInput, match=r"^data=cifar100: not loaded from the hub \((no network|Config).*the folder of a copy$"
    ):
        data.load(wanted)


def test_without_a_network_the_loader_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its retries take half a minute; what it has in its cache it still gives."""
    import huggingface_hub

    def refuse(self: object, repository: str, timeout: float) -> None:
        assert timeout <= 10
        raise OSError("Name or service not known")

    def load_dataset(path: str, revision: str | None = None) -> datasets.DatasetDict:
        assert datasets.config.HF_HUB_OFFLINE
        assert huggingface_hub.constants.HF_HUB_OFFLINE
        if path == "some/cached":
            return datasets.DatasetDict(train=hundred(100)[0], test=hundred(7)[0])
        raise ConnectionError(f"Couldn't reach {path} on the Hub (OfflineModeIsEnabled)")

    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    assert len(data.load(data.identify(RunConfig("some/cached", "mlp", "sgd"))).test) == 7
    with pytest.raises(BadInput) as caught:
        load("some/other")
    assert str(caught.value) == (
        "data=some/other: not loaded from the hub (no network, and it is not in the hub's cache here); check name and "
        "network, or give the folder of a copy"
    )
    assert before == (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)


def test_an_answer_is_one_even_where_it_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    from fenland.lab import huggingface

    def answer(self: object, repository: str, repo_type: str, timeout: float) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", answer)
    assert huggingface.answers("some/images", "dataset")
