"""Terminals that know ASCII alone: every command still prints."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from image_files import write_split

from fenland.lab.commands import streams

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def written(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    target = io.BytesIO()
    stream = io.TextIOWrapper(target, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    streams.forgive()
    print(text, end="", file=stream, flush=True)
    return target.getvalue()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("96.1 ± 0.3 %", b"96.1 +- 0.3 %"),
        ("32×32, −1 … 1 → ok", b"32x32, -1 ... 1 -> ok"),
        ("Émile, ½", b"Emile, 1/2"),
        ("漢字", b"??"),
        ("out/\udcc3\udca4", b"out/??"),
    ],
)
def test_what_ascii_lacks_is_written_plainly(text: str, plain: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(text, "ascii", monkeypatch) == plain


def test_utf8_stays_and_broken_names_do_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written("± é 漢", "utf-8", monkeypatch) == "± é 漢".encode()
    assert written("out/\udcc3", "utf-8", monkeypatch) == b"out/?"


@pytest.mark.parametrize(
    "words",
    [
        "variants", "data digits --sheet x.png",
        *(pytest.param(line, marks=pytest.mark.slow) for line in ("--help", "compare --help")),
    ],
)  # fmt: skip
def test_a_command_under_a_c_locale(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fenland.lab.cli", *words.split()]
    done = subprocess.run(command, env=os.environ | PLAIN, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert len(done.stdout) > 300


@pytest.mark.slow
def test_names_that_a_c_locale_lacks_are_folders_like_others(tmp_path: Path) -> None:
    """Data, store and pages under such a name: written, read again, and listed."""
    write_split(tmp_path / "dätä" / "train.parquet", 12)
    write_split(tmp_path / "dätä" / "test.parquet", 8)
    compare = ["compare", "--data", "dätä", "--model", "mlp", "--epochs", "1", "--seeds", "1", "--batch-size", "4"]
    compare += ["--optimizers", "sgd", "--out", "aüs"]
    for arguments in (compare, compare, ["report", "aüs"], ["runs", "aüs", "--check"], ["data", "dätä"]):
        done = subprocess.run(
            [sys.executable, "-m", "fenland.lab.cli", *arguments],
            env=os.environ | PLAIN | {"FENLAND_CACHE": str(tmp_path / "cäché")},
            cwd=tmp_path,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "aüs" / "report.html").is_file()
