"""``fenland runs``: filters, order, exports and one run, on a store of invented runs."""

import json
import shutil
from pathlib import Path
from typing import IO

import pandas as pd
import pytest
from synthetic_store import write_store

from fenland.lab import cli
from fenland.lab.errors import BadInput
from fenland.lab.store import listing
from fenland.lab.store.runs import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """TEST DATA: sgd, sam and ssam with three seeds, one of them diverged."""
    return Store(write_store(tmp_path / "out", diverged={("sam", 1)}))


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ([], 9),
        (["optimizer=sam"], 3),
        (["optimizer=sam,ssam"], 6),
        (["optimizer!=sam"], 6),
        (["optimizer=sam", "rho=0.05", "status=diverged"], 1),
        (["rho=none"], 3),
        (["rho!=none"], 6),
        (["seed=0..1"], 6),
        (["seed>=1", "seed<2"], 3),
        (["test_accuracy > 0.94", "status=finished"], 8),
        (["augment=off"], 9),
        (["augment=on"], 0),
        (["batch-size=64.0"], 9),
        (["model=mlp", "data=other"], 0),
        # A number that was not measured is neither large nor small.
        (["test_loss<100"], 8),
    ],
    ids=str,
)
def test_filters(store: Store, conditions: list[str], count: int) -> None:
    assert len(listing.choose(listing.rows(store.runs()), conditions)) == count


@pytest.mark.parametrize(
    ("condition", "cure"),
    {
        "optimizer": "write field=value",
        "colour=red": "no such field; choose one of run, data, model",
        "rho<small": "compare with a number",
    }.items(),
)
def test_wrong_conditions(store: Store, condition: str, cure: str) -> None:
    with pytest.raises(BadInput, match=f"^where={condition}: {cure}"):
        listing.choose(listing.rows(store.runs()), [condition])


def test_order(store: Store) -> None:
    rows = listing.rows(store.runs())
    losses = [row["test_loss"] for row in listing.order(rows, "test-loss")]
    assert losses[:-1] == sorted(losses[:-1])
    assert losses[-1] != losses[-1]
    down = [row["test_loss"] for row in listing.order(rows, "test_loss", descending=True)]
    assert down[:-1] == losses[-2::-1]
    assert [row["optimizer"] for row in listing.order(rows, "optimizer")] == ["sam"] * 3 + ["sgd"] * 3 + ["ssam"] * 3
    with pytest.raises(BadInput, match="no such field"):
        listing.order(rows, "beauty")


def test_a_result_of_some_runs_is_a_field_of_all(tmp_path: Path) -> None:
    runs = Store(write_store(tmp_path / "noisy")).runs()
    runs[4].result["noisy_labels"] = 7
    rows = listing.rows(runs)
    assert [row["noisy_labels"] for row in listing.choose(rows, ["noisy_labels=7"])] == [7]
    assert len(listing.choose(rows, ["noisy_labels=none"])) == len(rows) - 1
    assert listing.order(rows, "noisy_labels")[0]["noisy_labels"] == 7


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_exports_come_back(store: Store, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    file = tmp_path / f"rows.{ending}"
    file.write_text("old")
    assert cli.main(["runs", str(store.root), "--where", "optimizer=sam", "seed=0", "--export", str(file)]) == 0
    assert capsys.readouterr().out == f"1 of 9 runs in {file}\n"
    (row,) = read(file).to_dict("records")
    (run,) = [run for run in store.runs() if run.config.optimizer == "sam" and run.config.seed == 0]
    assert (row["run"], row["rho"], row["epochs"]) == (run.folder.name, 0.05, 12)
    assert row["test_accuracy"] == pytest.approx(run.result["test_accuracy"], rel=1e-12)
    command = ["runs", str(store.root), "--where", "optimizer=sam", "--epochs", "--export", str(file)]
    assert cli.main(command) == 0
    table = read(file)
    assert len(table) == 12 + 6 + 12
    assert list(table.columns[:5]) == ["run", "optimizer", "rho", "seed", "epoch"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", file.name]


def test_a_failed_export_leaves_what_was_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(frame: pd.DataFrame, file: IO[bytes], **_: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    file = tmp_path / "rows.csv"
    file.write_text("old")
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert cli.main(["runs", str(store.root), "--export", str(file)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert file.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("words", "said"),
    {
        "--export rows.xls": "--export=rows.xls: the name must end in .parquet or .csv",
        "--export no/such/rows.csv": "--export=no/such/rows.csv: its directory does not exist",
        "--show zzz": "--show=zzz: no stored run begins so",
        "--show sgd0000 --where seed=1": "--where=seed=1: means nothing with --show; leave one of them out",
        "--show sgd0000 --epochs": "--epochs=on: means nothing with --show; leave one of them out",
        "--check --show sgd0000": "--show=sgd0000: means nothing with --check; leave one of them out",
        "--check --export a.csv": "--export=a.csv: means nothing with --check; leave one of them out",
        "--descending": "--descending=on: is the order of --sort FIELD; give that too",
        "--epochs": "--epochs=on: is for --export or --json; give one of them, or --show HASH alone",
        "--where": "--where=(nothing): give a value, or leave it out",
        "--show s": "--show=s: 9 runs begin so: sam0000, sam0001, sam0002, sgd0000, sgd0001",
    }.items(),
)
def test_wrong_arguments(store: Store, words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(store.root), *words.split()]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"fenland: {said}\n")


def test_one_run_in_full(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(store.root), "--show", "ssam0001"]) == 0
    said = capsys.readouterr().out
    for word in ("configuration", "result", "environment", "epochs of ssam0001", "invented", "2.13.0", "sharpness"):
        assert word in said
    assert sum(line.strip().startswith(tuple("123456789")) for line in said.splitlines()) == 12
    assert cli.main(["runs", str(store.root), "--show", "SGD0001", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["run"], content["config"]["seed"], len(content["epochs"])) == ("sgd0001", 1, 12)
    assert content["environment"]["torch"] == "2.13.0"


def test_json_and_table(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["runs", str(store.root), "--where", "status=diverged"]
    assert cli.main(command) == 0
    assert "1 of 9 runs" in capsys.readouterr().out
    assert cli.main([*command, "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["run"], run["result"]["test_loss"]) == ("sam0001", None)
    assert cli.main([*command, "--json", "--epochs"]) == 0
    assert [row["epoch"] for row in json.loads(capsys.readouterr().out)] == [1, 2, 3, 4, 5, 6]


def test_a_check_of_the_whole_store(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)
    assert cli.main(["runs", str(copy), "--check"]) == 0
    assert capsys.readouterr().out == "9 of 9 runs are whole\n"
    (copy / "runs" / "sam0000" / "config.json").unlink()
    (copy / "runs" / "sgd0001").rename(copy / "runs" / "sgd0009")
    assert cli.main(["runs", str(copy), "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "sam0000 is damaged: config.json is missing",
        "sgd0009 is damaged: it was stored as sgd0001, not under this name",
        "7 of 9 runs are whole",
    ]
    assert cli.main(["runs", str(copy), "--check", "--json"]) == 1
    assert [row["run"] for row in json.loads(capsys.readouterr().out) if row["damaged"]] == ["sam0000", "sgd0009"]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (["optimizer=SAM"], "no run has optimizer=SAM; optimizer is sam, sgd, ssam"),
        (["seed=0", "seed>7"], "no run has seed>7; seed is 0, 1, 2"),
        (["weights=none"], "no run has weights=none; weights is False"),
        (["optimizer=sgd", "rho=0.05"], "no run meets all conditions at once"),
    ],
)
def test_no_match_is_said(conditions: list[str], said: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--json"]):
        assert cli.main(["runs", str(store.root), "--where", *conditions, *more]) == 0
        captured = capsys.readouterr()
        assert captured.err == f"fenland: {said}\n"
        assert captured.out == "[]\n" if more else "0 of 9 runs" in captured.out


def test_a_pipe_is_as_wide_as_columns_says(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = {}
    for columns in ("60", "200", "", "wide"):
        monkeypatch.setenv("COLUMNS", columns)
        assert cli.main(["runs", str(store.root)]) == 0
        widths[columns] = max(len(line) for line in capsys.readouterr().out.splitlines())
    assert widths["60"] <= 60
    assert 60 < widths[""] == widths["wide"] <= 140
