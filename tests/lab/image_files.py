"""Small parquet files of random images in the hub's schema."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def write_split(
    path: Path,
    count: int = 40,
    size: tuple[int, ...] = (8, 8),
    columns: tuple[str, str] = ("image", "label"),
    cells: list[dict[str, bytes | str | None] | None] | None = None,
    labels: list[int | None] | None = None,
    names: list[str] | None = None,
    kind: pyarrow.DataType = STRUCT,
    extra: dict[str, list[object]] | None = None,
) -> np.ndarray:
    """A parquet file of random images in the hub's schema; returns the pixels."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, *size), dtype=np.uint8)
    cells = [{"bytes": png(image), "path": None} for image in pixels] if cells is None else cells
    labels = [index % 4 for index in range(count)] if labels is None else labels
    table = pyarrow.table(
        {columns[0]: pyarrow.array(cells, kind), columns[1]: pyarrow.array(labels, pyarrow.int64()), **(extra or {})}
    )
    if names is not None:
        # As the hub's library writes the names of classes.
        features = {columns[1]: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return pixels


def write_tree(folder: Path, classes: dict[str, dict[str, int]], size: tuple[int, ...] = (8, 8, 3)) -> None:
    """Folders SPLIT/CLASS/ with so many random images each."""
    generator = np.random.default_rng(0)
    for split, counts in classes.items():
        for name, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                content = png(generator.integers(0, 256, size, dtype=np.uint8))
                (folder / split / name / f"{number}.png").write_bytes(content)
