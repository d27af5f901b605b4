"""What kind of data a folder holds, and where each split of it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fenland.lab.data import splits
from fenland.lab.data.source import Split, some
from fenland.lab.data.walk import shown, visible
from fenland.lab.errors import BadInput
from fenland.lab.store.files import feed


class Layout(Protocol):
    """One way in which a folder can hold a data set."""

    #: What it is called.
    kind: str
    #: The files of each split.
    files: dict[str, list[Path]]
    #: Files that belong to no split.
    ignored: list[Path]

    def check(self, split: str) -> None:
        """Raise BadInput where a split has the wrong schema or is empty; nothing is decoded."""

    def described(self, split: str, train: str) -> list[tuple[str, Path]]:
        """Everything that fixes what the split holds: files whose content counts, each with a text that counts too."""

    def read(self, split: str, train: str) -> Split:
        """The split's labels, and its images or texts as they are stored."""


@dataclass(frozen=True)
class Folder:
    """A folder with a train and a test split."""

    argument: str  # that named it, for errors
    path: Path  # the folder
    layout: Layout  # how it holds the data
    train: str  # name of the split that is trained on
    test: str  # name of the split that is tested on

    def identity(self) -> str:
        """Hash of all contents that the images and labels come from, after a check of their schemas."""
        digest = hashlib.sha256()
        for role, split in (("train", self.train), ("test", self.test)):
            self.layout.check(split)
            digest.update(role.encode())
            for text, file in self.layout.described(split, self.train):
                digest.update(text.encode())
                if not file.is_file():  # a pipe or a device would be read for ever
                    cure = "is no file, or a link to none; remove it, or put the file there"
                    raise BadInput(self.argument, file, cure)
                try:
                    feed(digest, file)
                except OSError as error:
                    raise BadInput(self.argument, file, f"cannot be read ({error.strerror}); check the file") from None
        return digest.hexdigest()[:16]

    def others(self) -> list[str]:
        """Splits that are not used."""
        return [name for name in self.layout.files if name not in (self.train, self.test)]

    def read(self, split: str) -> Split:
        """The split of this name, not decoded."""
        return self.layout.read(split, self.train)


def find(argument: str, folder: Path, test_split: str = "") -> Folder:
    """Recognise what the folder holds.

    Args:
        argument: that named it, for errors.
        folder: its path.
        test_split: name of the split to test on; empty takes ``test``, else the one validation split.

    Raises:
        BadInput: it is no folder, holds nothing of a known kind, or leaves open which split is which.
    """
    from fenland.lab.data import parquet, tree

    if not folder.is_dir():
        problem = "is a file, not a directory" if folder.exists() else "no such directory"
        cure = "give the directory that holds train.parquet and test.parquet, or train/CLASS/ with images"
        raise BadInput(argument, folder, f"{problem}; {cure}")
    layout: Layout | None = parquet.find(argument, folder) or tree.find(argument, folder)
    if layout is None:
        raise BadInput(argument, folder, _unknown(folder))
    return Folder(argument, folder, layout, *splits.choose(layout.files, test_split, argument, folder))


def _unknown(folder: Path) -> str:
    """What the folder holds instead, with the cure."""
    files = visible(folder)
    names = {file.name for file in files}
    endings = {file.suffix.lower() for file in files}
    if names & {"dataset_dict.json", "state.json"}:
        return (
            "was written by save_to_disk, which is not read here; convert each split, as in "
            f"datasets.load_from_disk({str(folder)!r})['train'].to_parquet('train.parquet')"
        )
    wanted = "it needs train.parquet and test.parquet, or image folders train/CLASS/ and test/CLASS/"
    if endings & {".csv", ".tsv", ".json", ".jsonl"}:
        listed = some(sorted(name for name in names if Path(name).suffix in (".csv", ".tsv", ".json", ".jsonl")))
        return f"holds tables of text ({listed}); convert each split to parquet: {wanted}"
    if not files:
        return f"holds no files; {wanted}"
    loose = sorted(each.name for each in folder.iterdir() if each.is_dir() and shown(each.name))
    named = [name for name in loose if splits.base(name) is not None]
    if named:
        return f"has no parquet files and no images in classes in {some(named)}; {wanted}"
    if loose:
        return f"has no split in it, only the folders {some(loose)}; {wanted}"
    return f"has no split in it, only {some(sorted(names))}; {wanted}"
