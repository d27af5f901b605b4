"""From ``--set`` words to runs, and from runs to the table of settings."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from image_files import write_split

from fenland.lab import cli
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store.runs import Store
from fenland.lab.store.seal import seal
from fenland.lab.store.statistics import interval
from fenland.lab.sweep import settings


@pytest.mark.parametrize(
    ("words", "said"),
    {
        ("rho",): "set=rho: write field=value or field=value,value, as in rho=0.05,0.1 or seed=0..9",
        ("colour=red",): "set=colour=red: no such field; choose one of data, model, optimizer, seed, rho",
        ("data_id=x",): "set=data_id=x: no such field",
        ("model_id=x",): "set=model_id=x: no such field",
        ("model_dir=x",): "set=model_dir=x: no such field",
        ("cutout_share=0.5",): "set=cutout_share=0.5: is the share of images that cutout blanks a square in; give",
        ("strategy=ddp", "seed=0"): "set=strategy=ddp: is for several devices; give devices too, or leave it out",
        ("seed=1", "seed=2"): "set=seed=2: seed is set twice; list its values as in seed=a,b",
        ("seed=5..1",): "set=seed=5..1: 5..1 is an empty range",
        ("seed=1,,2",): "set=seed=1,,2: a value is missing",
        ("seed=x",): "set=seed=x: give a whole number >= 0",
        ("seed=-1",): "set=seed=-1: give a whole number >= 0",
        ("rho=small",): "set=rho=small: give a number >= 0",
        ("rho=-1",): "set=rho=-1: give a number >= 0",
        ("rho=0.1", "optimizer=sgd"): r"set=rho=0.1: none of these optimizers has a radius \(sgd\)",
        ("optimizer=sgd,slam",): "set=optimizer=slam: choose one of sgd, adamw, sam",
        ("batch_size=many",): "set=batch_size=many: give a whole number >= 1",
        ("model=tree",): "set=model=tree: choose one of mlp, lenet",
        ("augment=perhaps",): "set=augment=perhaps: give on or off, or auto",
        ("weights=perhaps",): "set=weights=perhaps: give on or off",
        ("data=mnst",): "set=data=mnst: choose one of digits, mnist",
        ("options=eta=0.1", "optimizer=sam"): "set=options=eta=0.1: ",
        ("device=toaster",): "set=device=toaster: choose one of auto",
        ("replace=first",): "set=replace=first: give a whole number >= 0, or none",
    }.items(),
    ids=str,
)
def test_errors_name_the_field_and_the_value(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=f"^{said}"):
        settings.plan(words)


def test_a_field_that_changes_nothing_in_some_runs_is_no_mistake() -> None:
    plan = settings.plan(["model=mlp", "optimizer=sgd", "seed=0", "cutout=0,4", "cutout_share=0.5,1"])
    assert len(plan.runs) == 4


def test_folders_are_settings_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FENLAND_CACHE", str(tmp_path / "cache"))
    for count, name in enumerate(("one", "two"), start=30):
        for split in ("train", "test", "validation"):
            write_split(tmp_path / name / f"{split}.parquet", count + len(split))
    given = ["model=mlp", "optimizer=sgd", "seed=0,1"]
    plan = settings.plan([f"data={tmp_path / 'one'},{tmp_path / 'two'}", *given])
    assert len(plan.runs) == 4
    assert plan.fields == ("data_dir",)
    assert {(run.data, run.data_dir) for run in plan.runs} == {
        ("local", str(tmp_path / name)) for name in ("one", "two")
    }
    plan = settings.plan([f"data={tmp_path / 'one'}", "test_split=test,validation", *given])
    assert len({run.hash for run in plan.runs}) == 4
    assert plan.fields == ("test_split",)
    with pytest.raises(
        BadInput, match=r"^set=test_split=exam: .* has the splits test, train, validation; choose one of"
    ):
        settings.plan([f"data={tmp_path / 'one'}", "test_split=exam", *given])
    with pytest.raises(BadInput, match=r"^set=data=local: give the folder itself, as in --set data=DIR$"):
        settings.plan(["data=local", *given])
    (tmp_path / "one" / "validation.parquet").write_bytes(b"PAR1")
    file = tmp_path / "one" / "validation.parquet"
    with pytest.raises(BadInput, match=rf"^set=data={file}: corrupt or truncated parquet"):
        settings.plan([f"data={tmp_path / 'one'}", "test_split=validation", *given])


def test_every_combination_once_and_seed_by_seed() -> None:
    plan = settings.plan(["optimizer=sgd,sam,ssam", "rho=0.01,0.05,0.1", "seed=0..9", "model=mlp"])
    # Three radii for two methods, and SGD, which has none, once.
    assert len(plan.runs) == (2 * 3 + 1) * 10
    assert len({run.hash for run in plan.runs}) == len(plan.runs)
    assert [run.seed for run in plan.runs] == sorted(run.seed for run in plan.runs)
    assert {run.rho for run in plan.runs if run.optimizer == "sgd"} == {None}
    assert {run.rho for run in plan.runs if run.optimizer == "sam"} == {0.01, 0.05, 0.1}
    assert plan.fields == ("optimizer", "rho")
    assert {(run.data, run.model, run.epochs, run.data_id != "") for run in plan.runs} == {("digits", "mlp", 30, True)}


def test_what_is_not_set_is_what_compare_takes() -> None:
    from fenland.lab.sweep.planning import Request, plan

    assert list(settings.plan([]).runs) == plan(Request())
    fields = {"warmup": "2", "weights": "on", "limit": "100"}
    asked = Request(fields, optimizers=("asam",), seeds="1", options=("asam:eta=0.1",))
    words = ["optimizer=asam", "seed=0", "options=eta=0.1", "warmup=2", "weights=on", "limit=100"]
    assert list(settings.plan(words).runs) == plan(asked)


def test_automatic_values_follow_the_data_and_the_strategy() -> None:
    from fenland.lab.sweep.planning import base_run

    assert not base_run({"data": "digits"}).channels_last
    assert base_run({"data": "cifar10"}).channels_last
    assert not base_run({"data": "cifar10", "strategy": "fsdp", "device": "cpu"}).channels_last
    assert base_run({"data": "digits", "channels_last": "yes"}).channels_last
    assert (base_run({"base": "adamw"}).lr, base_run({"base": "adamw", "lr": "0.5"}).lr) == (1e-3, 0.5)


def test_bases_and_devices() -> None:
    plan = settings.plan(["optimizer=sgd,adamw,sam", "base=sgd,adamw", "seed=0"])
    assert [(run.optimizer, run.base) for run in plan.runs] == [
        ("sgd", "sgd"), ("adamw", "adamw"), ("sam", "sgd"), ("sam", "adamw"),
    ]  # fmt: skip
    assert {run.device for run in settings.plan(["seed=0"], device="cuda").runs} == {"cuda"}


def test_settings_are_means_over_seeds(tmp_path: Path) -> None:
    plan = settings.plan(["optimizer=sgd,sam", "seed=0..3", "model=mlp", "epochs=1", "limit=100"])
    store = Store(tmp_path)
    accuracy = {}
    for run in plan.runs[:-1]:  # sam with seed 3 is missing
        accuracy[run] = 0.9 + run.seed / 100
        write(store, run, "diverged" if (run.optimizer, run.seed) == ("sgd", 3) else "finished", accuracy[run])
    table = settings.table(plan, store).set_index("optimizer")
    assert table[["n", "diverged", "missing"]].to_dict("list") == {"n": [3, 3], "diverged": [1, 0], "missing": [0, 1]}
    expected = interval([0.9, 0.91, 0.92])
    for name in ("sgd", "sam"):
        row = table.loc[name]
        assert (row.test_accuracy, row.test_accuracy_low, row.test_accuracy_high) == pytest.approx(expected[:3])


def write(store: Store, run: RunConfig, status: str, accuracy: float) -> None:
    """TEST DATA: an invented result of this configuration."""
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "loss_gap", "accuracy_gap", "seconds"), 1.0)
    result: dict[str, Any] = {"status": status, "epochs": 1, **numbers, "test_accuracy": accuracy}
    folder = store.folder / run.hash
    folder.mkdir(parents=True)
    for name, content in (("config", dataclasses.asdict(run)), ("result", result), ("environment", {})):
        (folder / f"{name}.json").write_text(json.dumps(content))
    pd.DataFrame([{"epoch": 1}]).to_parquet(folder / "metrics.parquet")
    seal(folder)


@pytest.mark.slow
def test_a_sweep_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = "optimizer=sgd,sam rho=0.05,0.1 seed=0..1 epochs=1 limit=320 model=mlp"
    command = ["sweep", "compare", *(part for word in words.split() for part in ("--set", word)), "--out", str(out)]
    assert cli.main([*command, "--logger", "tensorboard"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[-1] == str(out / "report.html")
    assert any(line.startswith("[6/6] sam rho=0.1 seed 1: test ") for line in lines)
    assert [line.split()[:3] for line in lines if "±" in line and "Mean" not in line] == [
        ["sgd", "-", "2"], ["sam", "0.05", "2"], ["sam", "0.1", "2"],
    ]  # fmt: skip
    told = {path.parent.name for path in (out / "trackers" / "tensorboard").glob("*/events*")}
    assert told == {path.name for path in (out / "runs").iterdir()}
    assert "SAM (rho=0.05)" in (out / "report.html").read_text()
    assert cli.main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["ran"], content["stored_before"], content["failed"]) == (0, 6, [])
    assert [(row["optimizer"], row["rho"], row["n"]) for row in content["settings"]] == [
        ("sgd", None, 2), ("sam", 0.05, 2), ("sam", 0.1, 2),
    ]  # fmt: skip


def test_wrong_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["sweep", "nonsense", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("fenland: TARGET=nonsense: choose one of compare, ")
    assert cli.main(["sweep", "compare", "--data-root", "x", "--out", str(out)]) == 2
    assert capsys.readouterr().err == "fenland: --data-root=x: is for studies; here write --set data_dir=DIR\n"
    assert not out.exists()
