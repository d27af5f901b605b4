"""docs/choosing-rho.md: its code runs, top to bottom, and its table has sources."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "choosing-rho.md"


def test_the_code_runs(tmp_path, monkeypatch, capsys):
    for library in ("sklearn", "matplotlib", "hessian_eigenthings"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(blocks) == 5
    space: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    out = capsys.readouterr().out
    assert "proposal: rho = " in out
    assert "verdict: " in out
    assert (tmp_path / "rho.png").exists()
    assert 0 < space["found"].proposal < 3


def test_every_row_of_the_table_has_a_source():
    table = PAGE.read_text().split("### Published values")[1].split("These values come from")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 12
    for row in rows:
        assert len(row) == 5
        assert all(cell.strip() for cell in row), row
        assert "memory" not in row[4]
