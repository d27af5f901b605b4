"""A folder of parquet files in the schema of the hub's data sets of images or of texts.

An image column ``image`` or ``img`` (struct of ``bytes`` and ``path``), or a column of texts such as ``text`` or
``sentence``, and an integer column ``label``. File names, or the folders they are in, name the split. An image without
bytes is read from its path, relative to its parquet file.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from fenland.lab.data import pixels, shards
from fenland.lab.data.columns import cells, find_columns, is_text, no_nulls, strings
from fenland.lab.data.images import Labels
from fenland.lab.data.source import Encoded, Split, first_line
from fenland.lab.data.walk import visible
from fenland.lab.errors import BadInput

_BROKEN = (pyarrow.ArrowException, OSError)


def find(argument: str, folder: Path) -> ParquetFolder | None:
    """The splits of a folder of parquet files; None where no file is one of a split."""
    files = [file for file in visible(folder) if file.suffix.lower() == ".parquet"]
    parts = {file: shards.part(file, file.relative_to(folder)) for file in files}
    known = [each for each in parts.values() if each is not None]
    if not known:
        return None
    ignored = [file for file, each in parts.items() if each is None]
    return ParquetFolder(argument, folder, shards.together(known, argument, folder), ignored)


class ParquetFolder:
    """The parquet files of each split."""

    kind = "parquet files"

    def __init__(self, argument: str, folder: Path, files: dict[str, list[Path]], ignored: list[Path]) -> None:
        self.argument = argument
        self.folder = folder
        self.files = files
        self.ignored = ignored

    def check(self, split: str) -> None:
        """Check the footers and schemas of a split's files."""
        schemas = [self._opened(file) for file in self.files[split]]
        first = find_columns(schemas[0][0], self.argument, self.files[split][0])
        for (schema, _), file in zip(schemas, self.files[split], strict=True):
            own = find_columns(schema, self.argument, file)
            if own != first:
                problem = f"has the columns {' and '.join(own)}, {self.files[split][0].name} {' and '.join(first)}"
                raise BadInput(self.argument, file, f"{problem}; give all files of a split the same")
        if not sum(rows for _, rows in schemas):
            raise BadInput(self.argument, self.folder, f"its {split} split is empty; download it again")

    def described(self, split: str, train: str) -> list[tuple[str, Path]]:
        """The parquet files, and after each the images that it names by path."""
        found: list[tuple[str, Path]] = []
        for file in self.files[split]:
            found.append(("", file))
            if self._has_paths(file):
                found += [(each.name, each) for each in self._paths(file)]
        return found

    def read(self, split: str, train: str) -> Split:
        """The labels of all files of a split, and their images one by one."""
        self.check(split)
        files = self.files[split]
        content, label = find_columns(self._opened(files[0])[0], self.argument, files[0])
        labels = [self._labels(file, label) for file in files]
        ends = list(accumulate(len(each) for each in labels))

        def place(row: int) -> tuple[object, str]:
            number = bisect_right(ends, row)
            return files[number], f"row {row - (ends[number - 1] if number else 0)}"

        def encoded() -> Iterator[Encoded]:
            for file in files:
                yield from self._images(file)

        def texts() -> Iterator[str | None]:
            for file in files:
                yield from self._texts(file, content)

        names = self._names(files, label)
        whole: Labels = np.concatenate(labels)
        where, of_text = (f"column {label}", f"column {content}"), texts if is_text(content) else None
        return Split(split, self.argument, self.folder, whole, names, *where, encoded, place, of_text)

    def _opened(self, file: Path) -> tuple[pyarrow.Schema, int]:
        """The schema and the number of rows."""
        try:
            metadata = _metadata(file)
            return metadata.schema.to_arrow_schema(), metadata.num_rows
        except _BROKEN as error:
            detail = first_line(error)
            raise BadInput(self.argument, file, f"corrupt or truncated parquet ({detail}); download it again") from None

    def _labels(self, file: Path, label: str) -> Labels:
        try:
            with file.open("rb") as stream:
                column = parquet.read_table(stream, columns=[label], partitioning=None).column(label)
        except _BROKEN as error:
            raise self._corrupt(file, error) from None
        return no_nulls(column, label, self.argument, file)

    def _images(self, file: Path) -> Iterator[Encoded]:
        image, _ = find_columns(self._opened(file)[0], self.argument, file)
        for column in self._column(file, image):
            yield from cells(column, file.parent)

    def _paths(self, file: Path) -> Iterator[Path]:
        """The images that a file names by path.

        Raises:
            BadInput: a path leads to none: to nothing, a folder, or a device or a pipe, which have no end.
        """
        for row, each in enumerate(self._images(file)):
            if isinstance(each, Path):
                if not each.is_file():
                    column = find_columns(self._opened(file)[0], self.argument, file)[0]
                    raise BadInput(self.argument, file, f"row {row}, column {column}: {pixels.no_file(each)}")
                yield each

    def _texts(self, file: Path, name: str) -> Iterator[str | None]:
        for column in self._column(file, name):
            yield from strings(column)

    def _column(self, file: Path, name: str) -> Iterator[pyarrow.Array]:
        """A column piece by piece."""
        try:
            with file.open("rb") as stream, parquet.ParquetFile(stream) as opened:
                for batch in opened.iter_batches(batch_size=256, columns=[name]):
                    yield batch.column(0)
        except _BROKEN as error:
            raise self._corrupt(file, error) from None

    def _corrupt(self, file: Path, error: Exception) -> BadInput:
        return BadInput(self.argument, file, f"corrupt parquet ({first_line(error)}); download it again")

    def _has_paths(self, file: Path) -> bool:
        """Whether an image may have no bytes of its own: by the file's statistics, so that no page is read."""
        metadata = _metadata(file)
        image, _ = find_columns(metadata.schema.to_arrow_schema(), self.argument, file)
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for index in range(row_group.num_columns):
                column = row_group.column(index)
                if column.path_in_schema == f"{image}.bytes" and _nulls(column) != 0:
                    return True
        return False

    def _names(self, files: list[Path], label: str) -> tuple[str, ...] | None:
        """The names of the classes that the hub's schema carries."""
        found = [_class_names(self._opened(file)[0], label) for file in files]
        for names, file in zip(found, files, strict=True):
            if names != found[0]:
                cure = f"its classes have other names than those of {files[0].name}; write all files with the same"
                raise BadInput(self.argument, file, cure)
        return found[0]


def _metadata(file: Path) -> parquet.FileMetaData:
    """The footer of a file. Opened here, because pyarrow takes names for UTF-8, which those of a C locale are not."""
    with file.open("rb") as stream:
        return parquet.read_metadata(stream)


def _nulls(column: Any) -> int | None:
    """Missing values of a column chunk; None where the file does not say."""
    statistics = column.statistics
    return statistics.null_count if statistics is not None and statistics.has_null_count else None


def _class_names(schema: pyarrow.Schema, label: str) -> tuple[str, ...] | None:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None
