"""A local folder of parquet files in the schema of the hub's image data sets.

An image column ``image`` or ``img`` (struct of ``bytes`` and ``path``) and an integer column ``label``. File names, or
the folders they are in, start with ``train`` and with ``test`` (or ``valid``).
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pyarrow
from pyarrow import parquet

from fenland.lab.data import decode as decoding
from fenland.lab.data.images import Images
from fenland.lab.errors import BadInput

_CHUNK = 1 << 22


def identity(folder: Path) -> str:
    """Hash of the files' contents, after a check of their footers and schemas; no page is decoded."""
    digest = hashlib.sha256()
    for split, files in find(folder).items():
        digest.update(split.encode())
        if not sum(_rows(file) for file in files):
            raise BadInput("data-dir", folder, f"its {split} split is empty; download it again")
        for file in files:
            try:
                with file.open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        digest.update(chunk)
            except OSError as error:
                raise BadInput("data-dir", file, f"cannot be read ({error.strerror}); check its permissions") from None
    return digest.hexdigest()[:16]


def find(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of the train and the test split, sorted by name."""
    if not folder.is_dir():
        problem = "is a file, not a directory" if folder.exists() else "no such directory"
        raise BadInput("data-dir", folder, f"{problem}; give the directory that holds train.parquet and test.parquet")
    files = sorted(folder.rglob("*.parquet"))
    splits = {split: [file for file in files if _split(file.relative_to(folder)) == split] for split in _SPLITS}
    chosen = {"train": splits["train"], "test": splits["test"] or splits["valid"]}
    for split, found in chosen.items():
        if not found:
            raise BadInput(
                "data-dir", folder, f"no {split} split in it; name its file {split}.parquet or {split}-*.parquet"
            )
    return chosen


_SPLITS = ("train", "test", "valid")


def _split(path: Path) -> str | None:
    for part in reversed(path.parts):
        for split in _SPLITS:
            if part.lower().startswith(split):
                return split
    return None


def _rows(file: Path) -> int:
    """The number of rows, after a check of the schema."""
    try:
        metadata = parquet.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except (pyarrow.ArrowException, OSError) as error:
        detail = decoding.first_line(error)
        raise BadInput("data-dir", file, f"corrupt or truncated parquet ({detail}); download it again") from None
    decoding.columns(schema, "data-dir", file)
    rows: int = metadata.num_rows
    return rows


def decode(name: str, folder: Path) -> Images:
    """Decode the whole folder."""
    import datasets

    files = {split: [str(file) for file in found] for split, found in find(folder).items()}
    # The library's own copy of the bytes goes to a folder that is thrown away: the cache of tensors replaces it.
    with tempfile.TemporaryDirectory(prefix="fenland-") as scratch, decoding.quiet():
        try:
            loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=scratch)
        except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, OSError) as error:
            detail = decoding.first_line(error.__cause__ or error)
            raise BadInput("data-dir", folder, f"corrupt parquet ({detail}); download it again") from None
        return decoding.images(name, loaded["train"], loaded["test"], "data-dir", folder)
