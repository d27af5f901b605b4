"""Small parquet files of random images in the hub's schema."""

import io
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def write_split(
    path: Path,
    count: int = 40,
    size: tuple[int, ...] = (8, 8),
    columns: tuple[str, str] = ("image", "label"),
    cells: list[dict[str, bytes | None]] | None = None,
    labels: list[int | None] | None = None,
) -> np.ndarray:
    """A parquet file of random images in the hub's schema; returns the pixels."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, *size), dtype=np.uint8)
    cells = [{"bytes": png(image), "path": None} for image in pixels] if cells is None else cells
    labels = [index % 4 for index in range(count)] if labels is None else labels
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = {columns[0]: pyarrow.array(cells, struct), columns[1]: pyarrow.array(labels, pyarrow.int64())}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(table), path)
    return pixels
