"""The site, built once a session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder that `make docs` writes; a warning fails the build."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("latex2mathml")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out), "--config-file"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(ROOT / "mkdocs.yml")], capture_output=True, text=True, timeout=600, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return out
