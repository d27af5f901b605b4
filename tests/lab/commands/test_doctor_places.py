"""`fenland doctor` on runs whose data or model came from a folder: a stored run tells where to load them again."""

import shutil
from pathlib import Path

import pytest
from image_files import write_split
from text_files import write_data, write_model

from fenland.lab import cli


def train(out: Path, data: str, model: str, *more: str) -> list[str]:
    words = ["compare", "--data", data, "--model", model, "--optimizers", "sam", "--seeds", "1", "--epochs", "1"]
    return [*words, "--batch-size", "8", "--weights", "on", "--out", str(out), *more]


def test_a_run_on_a_folder_is_judged_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    for number, split in enumerate(("train", "test", "validation")):
        write_split(tmp_path / "set" / f"{split}.parquet", 30 + number)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    assert cli.main(train(tmp_path / "out", "set", "mlp", "--test-split", "validation")) == 0
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert cli.main(["doctor", str(tmp_path / "out")]) == 0
    assert "; 30 examples in 4 batches" in capsys.readouterr().out
    assert str(tmp_path / "set") not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_a_run_of_a_transformer_from_a_folder_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = write_model(tmp_path / "bert"), write_data(tmp_path / "texts")
    assert cli.main(train(tmp_path / "out", str(data), str(model), "--base", "adamw", "--limit", "16")) == 0
    capsys.readouterr()
    assert cli.main(["doctor", str(tmp_path / "out")]) == 0
    assert "verdict: " in capsys.readouterr().out
