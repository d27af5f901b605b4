"""Folders of image files, as torchvision's ImageFolder reads them: SPLIT/CLASS/ with images in it or below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fenland.lab.data import splits
from fenland.lab.data.source import Encoded, Split, some
from fenland.lab.data.walk import visible
from fenland.lab.errors import BadInput

# Notes that lie beside images; any other file that is no image may be one that Pillow cannot read.
_BESIDE = {".txt", ".csv", ".json", ".jsonl", ".xml", ".md", ".yaml", ".yml", ".db", ".ini", ".html", ""}


def find(argument: str, folder: Path) -> ImageTree | None:
    """The splits of a folder of image files; None where no subfolder that names a split has classes with images."""
    named = sorted(each for each in folder.iterdir() if each.is_dir() and splits.base(each.name) is not None)
    trees = {each.name: _classes(each) for each in named}
    if not any(image for classes in trees.values() for files in classes.values() for image in files if _image(image)):
        return None
    ignored = [file for each in named for file in visible(each) if not _image(file)]
    return ImageTree(argument, folder, {name: found for name, found in trees.items() if found}, ignored)


def _classes(split: Path) -> dict[str, list[Path]]:
    """The files of each class; those that lie beside the class folders are of no class."""
    return {each.name: visible(each) for each in sorted(split.iterdir()) if each.is_dir() and each.name[0] != "."}


def _image(file: Path) -> bool:
    from PIL import Image

    return Image.registered_extensions().get(file.suffix.lower()) in Image.OPEN


class ImageTree:
    """The image files of each class of each split."""

    kind = "image folders"

    def __init__(
        self, argument: str, folder: Path, trees: dict[str, dict[str, list[Path]]], ignored: list[Path]
    ) -> None:
        self.argument = argument
        self.folder = folder
        self.trees = {
            split: {name: [file for file in files if _image(file)] for name, files in classes.items()}
            for split, classes in trees.items()
        }
        self.files = {
            split: [file for own in classes.values() for file in own] for split, classes in self.trees.items()
        }
        self.ignored = ignored

    def check(self, split: str) -> None:
        """Refuse a class without an image, images of no class, and files that may be images but cannot be read."""
        place = self.folder / split
        for file in self.ignored:
            if file.is_relative_to(place) and file.suffix.lower() not in _BESIDE:
                raise BadInput(self.argument, file, "is no image that Pillow reads; convert it, or move it away")
        loose = [file for file in sorted(place.iterdir()) if file.is_file() and file.name[0] != "." and _image(file)]
        if loose:
            raise BadInput(self.argument, loose[0], f"is in no class; put it into {place.name}/CLASS/")
        for name, files in self.trees[split].items():
            if not files:
                raise BadInput(self.argument, place / name, "holds no image; add some, or remove the folder")

    def described(self, split: str, train: str) -> list[tuple[str, Path]]:
        """Every image with its class; its own name may change."""
        return [(f"\0{name}\0", file) for name, files in self._known(split, train).items() for file in files]

    def read(self, split: str, train: str) -> Split:
        """The images of a split; the class numbers count the train split's folders in the order of their names."""
        self.check(split)
        names = tuple(sorted(self.trees[train]))
        known = self._known(split, train)
        files = [file for own in known.values() for file in own]
        labels = [names.index(name) for name, own in known.items() for _ in own]

        def encoded() -> Iterator[Encoded]:
            yield from files

        def place(row: int) -> tuple[object, str]:
            return files[row], ""

        where = "folder names"
        return Split(split, self.argument, self.folder, np.array(labels, np.int64), names, where, "", encoded, place)

    def _known(self, split: str, train: str) -> dict[str, list[Path]]:
        """The split's classes, all of which the train split has."""
        own, names = self.trees[split], sorted(self.trees[train])
        for name in own:
            if name not in names:
                cure = f"is no class of the {train} split, which has {some(names)}; rename or remove it"
                raise BadInput(self.argument, self.folder / split / name, cure)
        return {name: own[name] for name in sorted(own)}
