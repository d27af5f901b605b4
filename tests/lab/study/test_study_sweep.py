"""A study is run once for each combination of the values of its fields."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fenland.lab import cli
from fenland.lab.config import RunConfig
from fenland.lab.studies import find
from fenland.lab.study import sweep as study_sweep
from fenland.lab.study.laboratory import Laboratory

COMMAND = ["sweep", "single-neuron", "--set", "steps=300,400", "--set", "rhos=0.1"]


def test_lists_and_combinations() -> None:
    plan = study_sweep.plan(find("quadratic"), "quick", ["steps=100,200", "radii=0.1,0.5;0.2", "paths=10"])
    assert plan.fields == ("steps", "radii")
    assert list(plan.settings) == [
        {"steps": steps, "radii": radii, "paths": "10"} for steps in ("100", "200") for radii in ("0.1,0.5", "0.2")
    ]
    assert study_sweep.folder_name({"steps": "100", "words": "a"}) == "steps=100,words=a"
    # What is lost in the name, by a letter that no folder takes or by its length, is told by a checksum.
    alike = ("a/b c", "a b/c", "a" * 300, "a" * 301)
    names = [study_sweep.folder_name({"steps": "100", "words": each}) for each in alike]
    assert names[0].startswith("steps=100,words=a_b_c-")
    assert len(set(names)) == len(alike)
    assert max(map(len, names)) < 255


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


def test_training_runs_of_a_study_are_tracked(tmp_path: Path) -> None:
    run = RunConfig("digits", "mlp", "sgd", batch_size=64, limit=128)
    lab = Laboratory(tmp_path, find("quadratic"), Console(file=io.StringIO()), trackers=["tensorboard"])
    lab.train([run])
    assert [path.parent.name for path in (tmp_path / "trackers" / "tensorboard").glob("*/events*")] == list(lab.trained)


@pytest.mark.parametrize("command", [["sweep", "quadratic"], ["study", "quadratic"]], ids=" ".join)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--logger aim", "--logger=aim: choose one of tensorboard, mlflow, wandb"),
        ("--cpus-per-run 2", "--cpus-per-run=2: is for a cluster; add --ray local or --ray ADDRESS"),
        ("--ray local --gpus-per-run -1", "--gpus-per-run=-1: give a whole number, or a fraction below 1"),
    ],
)
def test_trackers_and_resources_are_checked(
    command: list[str], words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, *words.split(), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"fenland: {said}\n"
    assert not (tmp_path / "out").exists()


def test_wrong_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", "quadratic", "--set", "steps=few", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "fenland: --set=steps=few: quadratic: write a whole number\n"
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_of_data_is_no_download(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "classification", "--data-root", "/nowhere", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert capsys.readouterr().err.startswith("fenland: --data-root=/nowhere: no such directory; give the folder that")
    assert not (tmp_path / "out").exists()
