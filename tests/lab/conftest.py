"""A cache of decoded data that lives as long as the test session, and tiny data sets to break."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Imported before the first test: it sets an environment variable, which would count as that test's leak.
import lightning.fabric  # noqa: F401
import pytest
from image_files import write_split
from matplotlib.figure import Figure
from PIL import Image
from synthetic_store import write_store

from fenland.lab.report import write_report

REAL = Path(__file__).parents[3] / "shared" / "data"
SAVEFIG = Figure.savefig


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


@pytest.fixture(scope="session")
def invented_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store of four optimizers, one run of which diverged; not to be changed."""
    out = write_store(tmp_path_factory.mktemp("invented"), ("sgd", "sam", "usam", "ssam"), diverged=[("sam", 1)])
    return write_report(out)


@pytest.fixture(autouse=True)
def wide_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """No width of a terminal that the runner has set for its workers."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def small_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the fast tier the files of a page's figures are blank, also those that a folder's fixtures write.

    A PDF with its fonts and a large PNG take more time than all else on a page, and few tests look at them: those ask
    for `whole_pictures`. The slow tests have all of them written. What is in the page, as SVG, is drawn in both tiers.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not any(item.get_closest_marker("slow") for item in request.session.items):
            patch.setattr(Figure, "savefig", _without_pixels)
        yield


@pytest.fixture
def whole_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at a figure's files: they are what a user gets."""
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)


def _without_pixels(figure: Figure, file: BinaryIO, **options: Any) -> None:
    if options.get("format") in ("png", "pdf"):
        Image.new("L", (1, 1)).save(file, options["format"])
    else:
        SAVEFIG(figure, file, **options)


@pytest.fixture
def real() -> Callable[[str], str]:
    """The folder of a real data set, or a skip."""

    def folder(name: str) -> str:
        found = REAL / name
        if not found.is_dir():
            pytest.skip(f"real data is not at hand ({found})")
        return str(found)

    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 40 train and 12 test images of 8x8 grey pixels in 4 classes, and an empty cache beside it."""
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny"
    write_split(folder / "train.parquet", 40)
    write_split(folder / "test.parquet", 12)
    return folder
