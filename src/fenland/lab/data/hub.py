"""A data set on the Hugging Face hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fenland.lab import huggingface
from fenland.lab.data import splits
from fenland.lab.data.columns import cells, find_columns, is_text, no_nulls, strings
from fenland.lab.data.source import Encoded, Split, first_line
from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    import datasets


def read(name: str, repository: str, test_split: str = "") -> tuple[Split, Split, list[str]]:
    """Download (or take from the hub's own cache) the train and the test split of ``owner/name[@revision]``.

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
    answers = huggingface.answers(path, "dataset")
    with _quiet(), contextlib.nullcontext() if answers else huggingface.offline():
        try:
            return dict(datasets.load_dataset(path, revision=revision or None))
        # OSError: the network, a missing repository, a full disk. ValueError: a set with several configurations.
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            said = first_line(error) if answers else "no network, and it is not in the hub's cache here"
            cure = f"not loaded from the hub ({said}); check name and network, or give the folder of a copy"
            raise BadInput("data", name, cure) from None


def _split(loaded: datasets.Dataset, split: str, name: str) -> Split:
    import datasets

    content, label = find_columns(loaded.data.schema, "data", name)
    where = f" of its {split} split"

    def encoded() -> Iterator[Encoded]:
        stored = loaded
        if isinstance(loaded.features[content], datasets.Image):
            stored = loaded.cast_column(content, datasets.Image(decode=False))
        for chunk in stored.data.column(content).chunks:
            yield from cells(chunk, None)

    def texts() -> Iterator[str | None]:
        for chunk in loaded.data.column(content).chunks:
            yield from strings(chunk)

    def place(row: int) -> tuple[object, str]:
        return name, f"row {row}{where}"

    labels = no_nulls(loaded.data.column(label), label, "data", name, where)[: len(loaded)]
    names = getattr(loaded.features[label], "names", None)
    classes = None if names is None else tuple(names)
    of_text = texts if is_text(content) else None
    return Split(split, "data", name, labels, classes, f"column {label}", f"column {content}", encoded, place, of_text)


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
