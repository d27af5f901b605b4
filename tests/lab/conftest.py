"""A cache of decoded data that lives as long as the test session, and tiny data sets to break."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fenland-cache")


@pytest.fixture(autouse=True)
def cache(session_cache: Path) -> Iterator[Path]:
    before = os.environ.get("FENLAND_CACHE")
    os.environ["FENLAND_CACHE"] = str(session_cache)
    yield session_cache
    if before is None:
        os.environ.pop("FENLAND_CACHE", None)
    else:
        os.environ["FENLAND_CACHE"] = before


@pytest.fixture
def real() -> Callable[[str], str]:
    """The folder of a real data set, or a skip."""

    def folder(name: str) -> str:
        found = REAL / name
        if not found.is_dir():
            pytest.skip(f"real data is not at hand ({found})")
        return str(found)

    return folder


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


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with 40 train and 12 test images of 8x8 grey pixels in 4 classes."""
    folder = tmp_path / "tiny"
    write_split(folder / "train.parquet", 40)
    write_split(folder / "test.parquet", 12)
    return folder
