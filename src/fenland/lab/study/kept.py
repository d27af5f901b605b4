"""What studies keep on the disk, under checksums: what was damaged since is computed again, and never read as truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.store import seal
from fenland.lab.store.files import Damaged, read_json, read_table, write_json, writing

if TYPE_CHECKING:
    import pandas

CONFIG, ENVIRONMENT, VERDICTS = "config.json", "environment.json", "verdicts.json"
FAILURE = "error.json"
_AGAIN = "run the study again"


def write_table(table: pandas.DataFrame, path: Path) -> None:
    """Write a parquet file whole."""
    with writing(path) as file:
        table.to_parquet(file, index=False)


def keep(table: pandas.DataFrame, path: Path, seconds: float) -> None:
    """Store the table of a piece, and beside it what it took and its checksum.

    The note comes last: a kill in between leaves a table that is not believed.
    """
    write_table(table, path)
    write_json(_note(path), {"seconds": round(seconds, 3), "sha256": seal.digest(path)})


def seconds_of(path: Path) -> float | None:
    """What a stored piece took; None where it is not stored, or is not what was written."""
    try:
        note = read_json(_note(path), _AGAIN)
        return float(note["seconds"]) if note["sha256"] == seal.digest(path) else None
    except (Damaged, OSError, KeyError, TypeError, ValueError):
        return None


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def seal_study(folder: Path, tables: tuple[str, ...]) -> None:
    """Write the checksums of a study's configuration, tables and, where they are there, verdicts."""
    seal.seal(folder, "study", (CONFIG, ENVIRONMENT, VERDICTS, *map(_table, tables)))


def flaw_of(folder: Path) -> str:
    """Which file of a stored study cannot be believed, and why; empty where all can."""
    return seal.flaw(folder, name="study", files=(CONFIG, ENVIRONMENT))


def read_study(folder: Path, name: str) -> dict[str, Any]:
    """`CONFIG`, `ENVIRONMENT` or `VERDICTS` of a stored study."""
    wrong = flaw_of(folder)
    if wrong:
        raise Damaged(folder, wrong, _AGAIN)
    return read_json(folder / name, _AGAIN)


def read_tables(folder: Path, names: tuple[str, ...]) -> dict[str, pandas.DataFrame]:
    """Tables of a stored study."""
    return {name: read_table(folder / _table(name)) for name in names}


def _table(name: str) -> str:
    return f"tables/{name}.parquet"
