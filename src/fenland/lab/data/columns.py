"""The two columns of the hub's tables: encoded images or texts, and class numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import compute

from fenland.lab.data.images import Labels
from fenland.lab.data.source import Encoded, some
from fenland.lab.errors import BadInput

_IMAGE_COLUMNS = ("image", "img")
_TEXT_COLUMNS = ("text", "sentence", "review", "content")
# The other half of a pair of texts, as in QNLI (question, sentence): without it the labels mean nothing.
_SECOND = ("question", "premise", "hypothesis", "sentence1", "sentence2", "text_pair", "text2")
# CIFAR-100 on the hub names its hundred classes fine_label.
_LABEL_COLUMNS = ("label", "fine_label", "labels")


def find_columns(schema: pyarrow.Schema, argument: str, value: object) -> tuple[str, str]:
    """The column of images, else of texts, and the label column, after a check of what they hold."""
    wanted = _IMAGE_COLUMNS if set(schema.names) & set(_IMAGE_COLUMNS) else _TEXT_COLUMNS
    content = _only(schema, wanted, argument, value, "image or img (images), or text or sentence (texts)")
    label = _only(schema, _LABEL_COLUMNS, argument, value, " or ".join(_LABEL_COLUMNS[:2]))
    kind = schema.field(content).type
    if is_text(content):
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise BadInput(argument, value, f"column {content} is {_short(kind)}; it must hold texts (string)")
        second = [name for name in schema.names if name in _SECOND]
        if second:
            cure = "one text an example is read: join them into one column text, or drop the other"
            raise BadInput(argument, value, f"has the text columns {content} and {second[0]}; {cure}")
    elif not pyarrow.types.is_struct(kind) or "bytes" not in {field.name for field in kind}:
        raise BadInput(argument, value, f"column {content} is {kind}; it must be a struct with encoded image bytes")
    kind = schema.field(label).type
    if not pyarrow.types.is_integer(kind):
        cure = "it must hold integer classes: number the classes from 0"
        raise BadInput(argument, value, f"column {label} is {_short(kind)}; {cure}")
    return content, label


def is_text(column: str) -> bool:
    """Whether a content column is one of texts: its name says so."""
    return column in _TEXT_COLUMNS


def _only(schema: pyarrow.Schema, wanted: tuple[str, ...], argument: str, value: object, cure: str) -> str:
    match = [name for name in schema.names if name in wanted]
    if not match:
        raise BadInput(argument, value, f"has the columns {some(schema.names, 12)}; it needs one named {cure}")
    if len(match) > 1:
        same = len(set(match)) == 1
        found = f"column {match[0]} {len(match)} times" if same else f"the columns {' and '.join(match)}"
        raise BadInput(argument, value, f"has {found}; it must be clear which one counts, keep one")
    return str(match[0])


def _short(kind: pyarrow.DataType) -> str:
    return "dictionary (categories)" if pyarrow.types.is_dictionary(kind) else str(kind)


def no_nulls(column: pyarrow.ChunkedArray, label: str, argument: str, value: object, where: str = "") -> Labels:
    """The labels as numbers."""
    if column.null_count:
        row = compute.index(compute.is_null(column), True).as_py()
        count = "1 row has none); label or drop it"
        if column.null_count > 1:
            count = f"{column.null_count} rows have none); label or drop them"
        cure = f"row {row}{where}, column {label}: has no label ({count}"
        raise BadInput(argument, value, cure)
    values = column.to_numpy()
    if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        raise BadInput(argument, value, f"column {label}{where} holds {values.max()}; number the classes from 0")
    found: Labels = values.astype(np.int64)
    return found


def cells(column: pyarrow.Array, base: Path | None) -> Iterator[Encoded]:
    """Each image's content, or where it lies; a relative path is taken from ``base``."""
    for cell in column:
        row = cell.as_py()
        if row is None:
            yield None
        elif row["bytes"] is not None:
            yield row["bytes"]
        elif row.get("path"):
            yield Path(row["path"]) if base is None else base / row["path"]
        else:
            yield None


def strings(column: pyarrow.Array) -> Iterator[str | None]:
    """Each text; None where a row has none."""
    for cell in column:
        yield cell.as_py()
