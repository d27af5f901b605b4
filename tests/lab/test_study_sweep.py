"""A study is run once for each combination of the values of its fields."""

import json
from pathlib import Path

import pytest

from fenland.lab import cli, study_sweep

COMMAND = ["sweep", "quadratic", "--set", "steps=300,400", "--set", "starts=5", "--set", "paths=100"]


def test_lists_and_combinations() -> None:
    plan = study_sweep.plan("quadratic", "quick", ["steps=100,200", "radii=0.1,0.5;0.2", "paths=10"])
    assert plan.fields == ("steps", "radii")
    assert list(plan.settings) == [
        {"steps": steps, "radii": radii, "paths": "10"} for steps in ("100", "200") for radii in ("0.1,0.5", "0.2")
    ]
    assert study_sweep.folder_name({"steps": "100", "words": "a/b c"}) == "steps=100,words=a_b_c"


def test_each_combination_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main([*COMMAND, "--out", str(out), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [each["set"] for each in content["settings"]] == [{"steps": "300"}, {"steps": "400"}]
    assert all(each["verdicts"] and Path(each["report"]).is_file() for each in content["settings"])
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "steps=300", "steps=400"]
    assert cli.main([*COMMAND, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("measured before") == 2
    assert said.splitlines()[-1] == str(out / "index.html")


def test_wrong_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", "quadratic", "--set", "steps=few", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "fenland: --set=steps=few: quadratic: write a whole number\n"
    assert not (tmp_path / "out").exists()
