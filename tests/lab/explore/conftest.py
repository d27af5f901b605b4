"""Two landscapes with few cells, measured once a session, and their page."""

import os
from pathlib import Path

import pytest
from explored import SMALL
from rich.console import Console
from toy import STUDY

from fenland.lab.explore import write_explorer
from fenland.lab.explore.cells import cells
from fenland.lab.study.run import run_study


@pytest.fixture(scope="session")
def measured(session_cache):
    """By landscape and method; kept in the session's cache, where the page finds them."""
    before = os.environ.get("FENLAND_CACHE")
    os.environ["FENLAND_CACHE"] = str(session_cache)
    try:
        return cells(SMALL, lambda what, done, total: None)
    finally:
        os.environ.pop("FENLAND_CACHE")
        if before is not None:
            os.environ["FENLAND_CACHE"] = before


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    """An out folder with one study in it."""
    out = tmp_path_factory.mktemp("explored") / "studies"
    with Path(os.devnull).open("w") as sink:
        run_study(STUDY, out=out, console=Console(file=sink))
    return out


@pytest.fixture(scope="session")
def page(measured, studies, session_cache):
    """The explorer of the small landscapes, with a gallery."""
    os.environ["FENLAND_CACHE"] = str(session_cache)
    try:
        return write_explorer(studies.parent / "explorer.html", studies, landscapes=SMALL)
    finally:
        os.environ.pop("FENLAND_CACHE")
