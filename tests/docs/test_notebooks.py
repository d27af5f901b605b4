"""The notebooks run from the first cell to the last, offline, each in a process of its own."""

import json
import os
import re
import subprocess
import sys

import pytest
from blocks import DOCS, ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(p.name for p in FOLDER.glob("*.ipynb"))
LIBRARIES = {"digits_in_five_minutes.ipynb": ["sklearn", "scipy"], "finetune_a_transformer.ipynb": ["transformers"]}


def cells(name: str) -> list[dict]:
    found = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert found["nbformat"] == 4
    return found["cells"]


def code(name: str) -> str:
    """All code cells as one program; a line before each says where it is."""
    parts = [f"# cell {i}\n{''.join(c['source'])}\n" for i, c in enumerate(cells(name)) if c["cell_type"] == "code"]
    return "\n".join(parts)


def run(program: str, folder) -> subprocess.CompletedProcess:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", program]
    env = {**os.environ, **offline}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, env=env)


def test_the_page_names_every_notebook():
    page = (DOCS / "notebooks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\[([\w.]+\.ipynb)\]", page)) == NAMES == sorted(LIBRARIES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_without_outputs_and_its_lines_are_short(name):
    for cell in cells(name):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert all(len(line.rstrip("\n")) <= 75 for line in cell["source"]), cell["source"]
    linked = re.findall(r"\]\((\.\./[^)#]+)", "".join("".join(c["source"]) for c in cells(name)))
    assert linked
    assert all((FOLDER / each).exists() for each in linked)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_offline(name, tmp_path):
    for library in LIBRARIES[name]:
        pytest.importorskip(library)
    done = run(code(name), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) > 5


def test_a_wrong_cell_fails(tmp_path):
    assert run("raise ValueError('in a cell')", tmp_path).returncode != 0
