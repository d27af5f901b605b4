"""A study from a file that is no part of fenland runs, is stored, judged and drawn; what is no study is refused."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from fenland.lab.cli import main
from fenland.lab.errors import BadInput
from fenland.lab.studies import STUDIES, find
from fenland.lab.study import pieces as module

EXAMPLE = Path(__file__).parents[3] / "examples" / "seldom_sam.py"
OWN = """
from dataclasses import dataclass
from functools import partial
import os
import pandas as pd
from fenland.lab.study import OURS, Claim, Finding, Piece, Source, Study

@dataclass(frozen=True)
class Config:
    top: int = 4

def square(number):
    return pd.DataFrame({"number": [number], "square": [number ** 2], "process": [os.getpid()]})

def measure(config, lab):
    pieces = [Piece("squares", {"number": n}, partial(square, n)) for n in range(config.top)]
    return {"squares": pd.concat(lab.keep_all(pieces, "squares"))}

def small(measured):
    largest = int(measured["squares"]["square"].max())
    return Finding("at most 9", str(largest), largest <= 9)

STUDY = Study(name="squares", title="Squares", source=OURS, question="How large?", config=Config, runs=measure,
              claims=[Claim("No square is large.", OURS, small)], paper={"top": 9})
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my study.py"
    path.write_text(OWN)
    return path


def test_the_documented_study_runs_as_fenlands_do(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--set", "epochs=2", "--set", "seeds=0,1", "--set", "limit=200", "--out", str(out)]
    assert main(["study", str(EXAMPLE), *words]) == 0
    page = (out / "seldom-sam/report.html").read_text()
    for said in ("SAM is more accurate than SGD.", "Claims of papers: ", "Claims of our own: ", "figure-curves"):
        assert said in page, said
    runs = pd.read_parquet(out / "seldom-sam/tables/runs.parquet")
    evaluations = runs.groupby("method")["gradient_evaluations"].mean()
    assert evaluations["seldom"] / evaluations["SGD"] == pytest.approx(1.5)
    assert runs.groupby("method")["seed"].nunique().tolist() == [2, 2, 2]
    assert "seldom-sam/report.html" in (out / "index.html").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/result.json")}
    capsys.readouterr()
    assert main(["study", str(EXAMPLE), *words]) == 0
    assert "measured before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (out / "seldom-sam/report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "seldom-sam/report.html").is_file()


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 40


@pytest.mark.slow  # tests/lab/study/test_pieces.py has pieces of fenland's own in two processes
def test_its_pieces_go_to_worker_processes(own, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "START_SECONDS", 0.0)
    try:
        assert main(["study", str(own), "--workers", "2", "--set", "top=12", "--out", str(tmp_path / "out")]) == 0
    finally:
        module._executor(2).shutdown(wait=True, kill_workers=True)
    table = pd.read_parquet(tmp_path / "out/squares/tables/squares.parquet")
    assert table["square"].tolist() == [n * n for n in range(12)]
    assert table["process"].nunique() > 1
    assert json.loads((tmp_path / "out/squares/verdicts.json").read_text())["verdicts"][0]["holds"] is False


def test_a_sweep_and_the_list_take_it_too(own, tmp_path, capsys):
    assert main(["sweep", str(own), "--set", "top=3,5", "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("top=*")) == ["top=3", "top=5"]
    capsys.readouterr()
    assert main(["study", str(own), "--list"]) == 0
    assert "top" in capsys.readouterr().out


def test_its_name_hides_no_library(tmp_path):
    path = tmp_path / "pandas.py"
    path.write_text(OWN)
    assert find(str(path)).name == "squares"
    assert sys.modules["pandas"] is pd


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("x = 1", "holds no study"),
        ("STUDY = 3", "holds no study"),
        ("1 / 0", "cannot be run (ZeroDivisionError: division by zero)"),
        ("def broken(:", "cannot be run (SyntaxError"),
        (OWN.replace('name="squares"', 'name="quartic"'), "as one of fenland's is"),
        (OWN.replace('name="squares"', 'name="all"'), "as one of fenland's is"),
    ],
)
def test_what_is_no_study_is_answered_in_one_line(tmp_path, text, words, capsys):
    path = tmp_path / "own.py"
    if text is not None:
        path.write_text(text)
    assert main(["study", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert not (tmp_path / "out").exists()


def test_a_word_that_is_neither_is_answered_with_the_names():
    with pytest.raises(BadInput, match=next(iter(STUDIES))):
        find("squares")
