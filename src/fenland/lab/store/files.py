"""The one way in which the lab writes files, whole or not at all, and reads what it wrote.

A file is written under a name of its own beside its place, brought to the disk, and renamed. So a reader sees the old
file or the new one, a kill or a full disk leaves the old one, and two writers do not write into each other's file. The
temporary name cannot be guessed and is opened only where nothing has it, so nobody who may write to the folder can have
us write through a link; a link at the place itself is replaced and not followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fenland.lab.errors import BadInput

if TYPE_CHECKING:
    import pandas

_CHUNK = 1 << 22
HOST = socket.gethostname().replace("-", "_") or "host"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Damaged(BadInput):
    """A stored file that cannot be what was written.

    Args:
        path: the file.
        why: what is wrong with it.
        cure: what to do.
    """

    def __init__(self, path: Path, why: str, cure: str) -> None:
        super().__init__("DIR", path, f"is damaged ({' '.join(why.split())[:160]}); {cure}")
        self.path, self.why = path, why
        # Exceptions travel between processes by their arguments.
        self.args = (path, why, cure)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """An open file whose content becomes ``path`` at the end of the block; after an exception nothing has changed."""
    temporary = own_name(path)
    clean(path.parent, path.name)
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    settle(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    with writing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8; a name in it that the locale could not read keeps its bytes."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a JSON document whole; numbers that are not finite are refused, since JSON has none."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The object that ``write_json`` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Damaged(path, "it is missing", cure) from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(path, str(error), cure) from error
    if not isinstance(content, dict):
        raise Damaged(path, f"a JSON object was written, this is a {type(content).__name__}", cure)
    return content


def feed(digest: hashlib._Hash, path: Path) -> None:
    """Take a file into a checksum, piece by piece."""
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)


def read_table(path: Path) -> pandas.DataFrame:
    """A table that was written as parquet.

    It is opened here, because pyarrow takes names for UTF-8, which those of a C locale are not.
    """
    import pandas

    with path.open("rb") as file:
        return pandas.read_parquet(file)


def settle(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def own_name(path: Path) -> Path:
    """A name beside ``path`` that nobody else has, and by which ``clean`` knows whose it is."""
    return path.with_name(f".tmp-{path.name}-{HOST}-{os.getpid()}-{secrets.token_hex(8)}")


def clean(folder: Path, name: str = "*") -> list[Path]:
    """Remove the temporary files of this machine's processes that are gone; the folders among them are returned."""
    folders = []
    for path in folder.glob(f".tmp-{_literal(name)}-{HOST}-*-*"):
        process = path.name.split("-")[-2]
        if process.isdigit() and not alive(int(process)):
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            else:
                path.unlink(missing_ok=True)
    return folders


def _literal(name: str) -> str:
    """A name as a pattern for itself; ``*`` stays what it is."""
    return name if name == "*" else "".join(f"[{each}]" if each in "[*?" else each for each in name)


def alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
