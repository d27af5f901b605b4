"""Every study of this folder's tests, run once on a configuration of seconds."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from fenland.lab.studies import find
from fenland.lab.study.run import Done, run_study
from fenland.lab.study.settings import configure

TINY = {
    "quartic": {"radii": "0.1,0.5", "lengths": "0.01,0.05", "starts": "60", "steps": "400"},
    "quadratic": {"radii": "0.1,0.5", "grid": "0.04", "starts": "10", "steps": "600", "paths": "2000"},
    "saddle-escape": {"n": "6", "lr": "0.02", "epochs": "40", "products": "0.4,0.8,1.5", "lengths": "0.02,0.2",
                      "seeds": "0,1"},
    "matrix-sensing": {"d": "30", "r": "3", "m": "300", "seeds": "0..3", "radii": "0.01,0.1"},
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="session")
def tiny_study(tiny_out: Path):
    """(study, configuration, tables, what it left) of a name, run once a session."""
    found: dict[str, tuple] = {}

    def get(name: str) -> tuple:
        import pandas

        if name not in found:
            done: Done = run_study(find(name), "quick", TINY[name], tiny_out, console=Console(file=io.StringIO()))
            tables = {path.stem: pandas.read_parquet(path) for path in (done.folder / "tables").glob("*.parquet")}
            study = find(name)
            found[name] = study, configure(study, "quick", TINY[name]), tables, done
        return found[name]

    return get
