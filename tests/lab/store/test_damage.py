"""What is damaged in a store is named, set aside and redone; nothing that was not written is read as truth."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fenland.lab import cli
from fenland.lab.config import RunConfig
from fenland.lab.store import environment
from fenland.lab.store.files import Damaged
from fenland.lab.store.runs import Store
from fenland.lab.store.seal import FILES, SEAL, WEIGHTS, flaw, seal
from fenland.lab.training.trainer import RunResult, train

CONFIG = RunConfig("digits", "mlp", "ssam", rho=0.05, batch_size=64, epochs=1, limit=64, weights=True)
ALL = (*FILES, SEAL, WEIGHTS)


@pytest.fixture(scope="module")
def result() -> RunResult:
    return train(CONFIG)


@pytest.fixture
def run(tmp_path: Path, result: RunResult) -> Path:
    return Store(tmp_path).save(CONFIG, result, environment.describe(1))


def harmed(path: Path, draw: random.Random) -> str:
    """Damage a file in some way; what was done."""
    content = path.read_bytes()
    how = draw.choice(["flip", "flip", "flip", "cut", "empty", "delete", "append", "zero", "other"])
    at = draw.randrange(len(content))
    if how == "delete":
        path.unlink()
        return how
    path.write_bytes(
        {
            "flip": content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :],
            "cut": content[:at],
            "empty": b"",
            "append": content + bytes([draw.randrange(256)]),
            "zero": bytes(len(content)),
            "other": json.dumps({"status": "finished"}).encode(),
        }[how]
    )
    return f"{how} at {at}"


def test_of_600_random_corruptions_none_is_believed(run: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    whole = {name: (run / name).read_bytes() for name in ALL}
    missed = []
    for _ in range(600):
        name = draw.choice(ALL)
        how = harmed(run / name, draw)
        found = Store(tmp_path).flaw(run.name, weights=True)
        # Where the list of sums is harmed, what it says of another file may be what does not fit.
        if not found or (name != SEAL and name not in found):
            missed.append((name, how, found))
        (run / name).write_bytes(whole[name])
    assert not missed
    assert Store(tmp_path).flaw(run.name, weights=True) == ""


@pytest.mark.parametrize("name", ALL)
def test_a_store_that_is_open_sees_the_change(run: Path, tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    assert store.has(CONFIG)
    content = bytearray((run / name).read_bytes())
    content[3] ^= 4
    (run / name).write_bytes(content)
    assert not store.has(CONFIG)
    with pytest.raises(Damaged, match=rf"{run.name}: is damaged \({name} "):
        store.load(run.name)
    assert store.runs() == []


def test_a_copy_under_another_name_is_no_run(run: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    shutil.copytree(run, run.with_name(other.hash))
    assert not Store(tmp_path).has(other)
    assert Store(tmp_path).damaged(other.hash) == f"it was stored as {CONFIG.hash}, not under this name"


def test_weights_that_are_wanted_and_not_there(run: Path, tmp_path: Path) -> None:
    (run / WEIGHTS).unlink()
    seal(run)
    assert flaw(run) == ""
    assert flaw(run, weights=True) == f"{WEIGHTS} is missing"


@pytest.mark.parametrize("harm", [lambda p: p.unlink(), lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"[]")])
@pytest.mark.parametrize("name", ["result.json", SEAL])
def test_saving_sets_a_damaged_run_aside(
    run: Path, tmp_path: Path, result: RunResult, name: str, harm: Callable[[Path], object]
) -> None:
    store = Store(tmp_path)
    for number in (1, 2):
        harm(run / name)
        store.save(CONFIG, result, {})
        assert store.has(CONFIG)
        assert (store.folder / f".damaged-{run.name}-{number}").is_dir()
    assert [each.folder for each in store.runs()] == [run]


@pytest.mark.slow
def test_a_damaged_run_is_said_and_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From end to end, for every file: the same numbers come back, and compare, report and runs stay whole."""
    out = tmp_path / "out"
    command = ["compare", "--data", "digits", "--model", "mlp", "--epochs", "1", "--limit", "64", "--seeds", "1"]
    command += ["--optimizers", "sgd", "sam", "--out", str(out)]
    assert cli.main(command) == 0
    store = Store(out)
    first = {each.config.optimizer: each.result["test_loss"] for each in store.runs()}
    name = next(each.folder.name for each in store.runs() if each.config.optimizer == "sam")
    for file in (*FILES, SEAL):
        (store.folder / name / file).write_bytes(b"{")
        capsys.readouterr()
        assert cli.main(["report", str(out)]) == 0
        assert f"left out: the run {store.folder / name} is damaged ({file} " in capsys.readouterr().err
        assert cli.main(command) == 0
        said = capsys.readouterr()
        assert f"sam seed 0 ({name}) is damaged: {file} " in said.out
        assert {each.config.optimizer: each.result["test_loss"] for each in Store(out).runs()} == first
        assert "Traceback" not in said.err
    assert len(list(store.folder.glob(".damaged-*"))) == len(FILES) + 1
    (out / "compare.json").write_text("{")
    assert cli.main(["report", str(out)]) == 2
    assert "compare.json: is damaged" in capsys.readouterr().err
