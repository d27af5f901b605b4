"""What a data set holds, for people who look before they train."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fenland.lab.config import RunConfig
from fenland.lab.data import classes, look_texts, pixels
from fenland.lab.data.classes import counts
from fenland.lab.data.images import Bytes, Images, Labels
from fenland.lab.data.load import folder_of, hub_name, load
from fenland.lab.data.source import Split
from fenland.lab.data.tokens import texts_of
from fenland.lab.errors import BadInput


@dataclass(frozen=True)
class Seen:
    """One split, as it is stored."""

    name: str  # what the source calls it
    rows: int  # how many images or texts it has
    modes: dict[str, int]  # how many images have each of Pillow's modes; of texts, how many rows are one
    sizes: dict[str, int]  # how many have each size, height x width, upright; of texts, how many words they have
    labels: dict[str, int]  # how many rows each class has, by its name; by its number where the source has no names
    unusable: int = 0  # how many images cannot be opened, or rows have no text


@dataclass(frozen=True)
class Look:
    """A data set as it would be loaded."""

    source: str  # where it comes from
    train: Seen  # the split that would be trained on
    test: Seen  # the split that would be tested on
    others: list[str] = field(default_factory=list)  # splits that are not used
    ignored: list[str] = field(default_factory=list)  # files that are not used
    # how many test images are in the train set too, pixel by pixel, or test texts, word by word; None where it was not
    # loaded
    repeated: int | None = None
    # the decoded set; None where it cannot be loaded or is one of texts
    images: Images | None = field(default=None, repr=False)
    problem: BadInput | None = None  # why not
    texts: tuple[str, ...] = ()  # a few train texts, each after its class number; empty where there are images

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        splits = {"train": vars(self.train), "test": vars(self.test)}
        shape = None if self.images is None else list(self.images.shape)
        classes = None if self.images is None else list(self.images.classes)
        found: dict[str, Any] = {"source": self.source, **splits, "others": self.others, "ignored": self.ignored}
        problem = None if self.problem is None else str(self.problem)
        found |= {"repeated": self.repeated, "shape": shape, "classes": classes, "problem": problem}
        return found | ({"texts": list(self.texts)} if self.texts else {})


def look(config: RunConfig) -> Look:
    """Survey the stored splits, then load them as a run would."""
    if config.data == "digits" and config.data_dir is None:
        images = load(config)
        one, two = (_decoded(name, *own, images.classes) for name, own in _halves(images).items())
        return Look("scikit-learn", one, two, repeated=_repeated(images), images=images)
    folder = folder_of(config)
    if folder is None:
        from fenland.lab.data import hub

        source, ignored = f"hub: {hub_name(config.data)}", []
        train, test, others = hub.read(config.data, hub_name(config.data), config.test_split or "")
    else:
        source = f"{folder.layout.kind} in {folder.path}"
        ignored = [str(file.relative_to(folder.path)) for file in folder.layout.ignored]
        train, test, others = folder.read(folder.train), folder.read(folder.test), folder.others()
    if train.texts is not None:
        return _of_texts(source, train, test, others, ignored)
    found = Look(source, _survey(train), _survey(test), others, ignored)
    try:
        images = load(config)
    except BadInput as problem:
        return replace(found, problem=problem)
    return replace(found, repeated=_repeated(images), images=images)


def _of_texts(source: str, train: Split, test: Split, others: list[str], ignored: list[str]) -> Look:
    first, second = look_texts.survey(train), look_texts.survey(test)
    problem = None
    try:
        classes.check(train, test, others)
        for split in (train, test):
            texts_of(split)
    except BadInput as error:
        problem = error
    return Look(
        source, _seen_texts(train, first), _seen_texts(test, second), others, ignored,
        repeated=_in_both(first.all, second.all), problem=problem, texts=first.examples,
    )  # fmt: skip


def _in_both(train: tuple[str, ...], test: tuple[str, ...]) -> int:
    known = frozenset(train)
    return sum(text in known for text in test)


def _seen_texts(split: Split, found: look_texts.SeenTexts) -> Seen:
    words = f"{found.words[0]} to {found.words[2]} words, median {found.words[1]}"
    rows = len(split.labels)
    kinds = ({"text": rows - found.empty}, {words: rows}, _named(split.labels, split.names or ()))
    return Seen(split.name, rows, *kinds, found.empty)


def _halves(images: Images) -> dict[str, tuple[Bytes, Labels]]:
    return {"train": (images.train, images.train_labels), "test": (images.test, images.test_labels)}


def _decoded(name: str, stored: Bytes, labels: Labels, classes: tuple[str, ...]) -> Seen:
    count, channels, height, width = stored.shape
    modes = {"L" if channels == 1 else "RGB": count}
    return Seen(name, count, modes, {f"{height}x{width}": count}, _named(labels, classes))


def _survey(split: Split) -> Seen:
    modes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    unusable = 0
    for encoded in split.encoded():
        try:
            mode, (width, height) = pixels.header(encoded)
        except pixels.Unusable:
            unusable += 1
            continue
        modes[mode] += 1
        sizes[f"{height}x{width}"] += 1
    labels = _named(split.labels, split.names or ())
    return Seen(split.name, len(split.labels), dict(modes.most_common()), dict(sizes.most_common()), labels, unusable)


def _named(labels: Labels, names: tuple[str, ...]) -> dict[str, int]:
    """How many rows each class has, those without any too."""
    found: dict[str, int] = dict.fromkeys(names, 0)
    for label, count in counts(labels).items():
        found[names[label] if 0 <= label < len(names) else str(label)] = count
    return found


def _repeated(images: Images) -> int:
    train = {_digest(image) for image in images.train}
    return sum(_digest(image) in train for image in images.test)


def _digest(image: Bytes) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
