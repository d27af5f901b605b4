import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fenland.lab.config import RunConfig
from fenland.lab.store import environment
from fenland.lab.store.files import HOST
from fenland.lab.store.runs import Store
from fenland.lab.training.trainer import RunResult, train

CONFIG = RunConfig("digits", "mlp", "ssam", rho=0.05, batch_size=64, epochs=2, limit=128, data_dir="/some/where")


@pytest.fixture(scope="module")
def result() -> RunResult:
    return train(CONFIG)


def test_a_run_comes_back_as_it_was(tmp_path: Path, result: RunResult) -> None:
    store = Store(tmp_path)
    assert not store.finished(CONFIG.hash)
    folder = store.save(CONFIG, result, environment.describe(1))
    assert store.finished(CONFIG.hash)
    assert folder == tmp_path / "runs" / CONFIG.hash
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "metrics.parquet",
        "result.json",
        "environment.json",
        "checksums.json",
    }
    stored = store.load(CONFIG.hash)
    # Where the data lies is no part of what the run is.
    assert stored.config == dataclasses.replace(CONFIG, data_dir=None)
    assert stored.config.hash == CONFIG.hash
    assert stored.environment["data_dir"] == "/some/where"
    assert stored.environment["torch"].startswith("2.")
    assert stored.environment["cpu"]
    assert stored.result == result.summary()
    pd.testing.assert_frame_equal(stored.metrics(), pd.DataFrame([record.as_dict() for record in result.records]))
    assert [run.folder for run in store.runs()] == [folder]


def test_making_a_store_writes_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "new").runs() == []
    assert not (tmp_path / "new").exists()


def test_a_diverged_runs_numbers_are_null(tmp_path: Path, result: RunResult) -> None:
    last = dataclasses.replace(result.records[-1], test_loss=math.nan, train_eval_loss=math.inf)
    folder = Store(tmp_path).save(CONFIG, RunResult("diverged", (last,), 1), {})
    text = (folder / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["test_loss"] is None
    assert math.isnan(Store(tmp_path).load(CONFIG.hash).result["test_loss"])


def test_the_first_of_two_writers_wins(tmp_path: Path, result: RunResult) -> None:
    store = Store(tmp_path)
    first = store.save(CONFIG, result, {"who": "first"})
    store.save(CONFIG, result, {"who": "second"})
    assert store.load(CONFIG.hash).environment["who"] == "first"
    assert list(store.folder.iterdir()) == [first]


def test_a_failed_write_leaves_nothing(tmp_path: Path, result: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space"):
        Store(tmp_path).save(CONFIG, result, {})
    assert list((tmp_path / "runs").iterdir()) == []


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store = Store(tmp_path)
    kept = {f".tmp-a-{HOST}-{os.getpid()}-0f", f".tmp-a-elsewhere-{dead.pid}-0f"}
    for name in {*kept, f".tmp-a-{HOST}-{dead.pid}-0f"}:
        (store.folder / name).mkdir(parents=True)
    store.clean()
    assert {folder.name for folder in store.folder.iterdir()} == kept
    assert store.runs() == []
