"""A data set on the Hugging Face hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fenland.lab.data import splits
from fenland.lab.data.columns import cells, find_columns, no_nulls
from fenland.lab.data.source import Encoded, Split, first_line
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    import datasets

_PATIENCE = 5  # seconds for the hub's first answer


def read(name: str, repository: str, test_split: str = "") -> tuple[Split, Split, list[str]]:
    """Download (or take from the hub's own cache) the train and the test split of ``owner/name[@revision]``.

    Args:
        name: what the user called it, for errors.
        repository: its name on the hub.
        test_split: see ``splits.choose``.

    Returns:
        The splits, and the names of the others.
    """
    loaded = _loaded(name, repository)
    train, test = splits.choose(loaded, test_split, "data", name)
    others = [split for split in loaded if split not in (train, test)]
    return _split(loaded[train], train, name), _split(loaded[test], test, name), others


def _loaded(name: str, repository: str) -> dict[str, datasets.Dataset]:
    import datasets

    path, _, revision = repository.partition("@")
    answers = _answers(path)
    with _quiet(), contextlib.nullcontext() if answers else _offline():
        try:
            return dict(datasets.load_dataset(path, revision=revision or None))
        # OSError: the network, a missing repository, a full disk. ValueError: a set with several configurations.
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            said = first_line(error) if answers else "no network, and it is not in the hub's cache here"
            cure = f"not loaded from the hub ({said}); check name and network, or give the folder of a copy"
            raise BadInput("data", name, cure) from None


def _answers(repository: str) -> bool:
    """Whether the hub answers, be it with an error: without a network its loader would try again for half a minute."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        huggingface_hub.HfApi().dataset_info(repository, timeout=_PATIENCE)
    except HfHubHTTPError:
        return True
    except Exception:  # one of several HTTP libraries, whose errors have nothing in common
        return False
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The hub's loader takes what it has and asks nobody."""
    import datasets
    import huggingface_hub

    settings: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in settings]
    for module in settings:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(settings, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _split(loaded: datasets.Dataset, split: str, name: str) -> Split:
    import datasets

    image, label = find_columns(loaded.data.schema, "data", name)
    where = f" of its {split} split"

    def encoded() -> Iterator[Encoded]:
        stored = loaded
        if isinstance(loaded.features[image], datasets.Image):
            stored = loaded.cast_column(image, datasets.Image(decode=False))
        for chunk in stored.data.column(image).chunks:
            yield from cells(chunk, None)

    def place(row: int) -> tuple[object, str]:
        return name, f"row {row}{where}"

    labels = no_nulls(loaded.data.column(label), label, "data", name, where)[: len(loaded)]
    names = getattr(loaded.features[label], "names", None)
    classes = None if names is None else tuple(names)
    return Split(split, "data", name, labels, classes, f"column {label}", f"column {image}", encoded, place)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's log; its progress bars show what is downloaded."""
    import datasets

    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
