"""Runs in TensorBoard and MLflow read back from their files, W&B offline; killed, late, failing, missing."""

import dataclasses
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput
from fenland.lab.store.runs import Store
from fenland.lab.sweep import trackers
from fenland.lab.sweep.runner import Outcome
from fenland.lab.sweep.sweep import sweep
from fenland.lab.sweep.trackers import check_trackers, tracked
from fenland.lab.training.metrics import EpochRecord

CONFIG = RunConfig("digits", "mlp", "sam", lr=0.05, batch_size=64, epochs=2, limit=128, options=("max_norm=5",))
needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in trackers.TRACKERS
}


class Quiet:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.ends: list[Outcome] = []
        self.notes: list[str] = []

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        self.epochs.append(record)

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        self.ends.append(outcome)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def quiet_clients() -> Iterator[None]:
    """The clients' own deprecations come late and from anywhere."""
    level = logging.getLogger("mlflow").level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("mlflow").setLevel(level)


def run(out: Path, *names: str, config: RunConfig = CONFIG) -> Quiet:
    watcher = Quiet()
    with tracked(watcher, names, out) as told:
        sweep([config], Store(out), told)
    return watcher


def record(epoch: int, loss: float = 1.0) -> dict[str, Any]:
    values: dict[str, Any] = {field.name: float(epoch) for field in dataclasses.fields(EpochRecord)}
    return {**values, "epoch": epoch, "train_loss": loss, "gamma": float("nan")}


def outcome(epochs: int, status: str = "finished") -> Outcome:
    return Outcome(
        CONFIG.hash, status, {"status": status, "epochs": epochs, "test_accuracy": 0.5, "diverged_step": None}
    )


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "trackers" / "tensorboard" / CONFIG.hash))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


@needs["tensorboard"]
def test_tensorboard_holds_epochs_configuration_and_result(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watcher = run(tmp_path, "tensorboard")
    assert [end.status for end in watcher.ends] == ["finished"]
    found = scalars(tmp_path)
    for name in ("train_loss", "test_accuracy", "sharpness", "lr"):
        assert found[name] == [(r["epoch"], pytest.approx(r[name], rel=1e-6)) for r in watcher.epochs]
    assert "cosine" not in found  # SAM does not define it
    assert found["result/test_accuracy"][0][1] == pytest.approx(watcher.ends[0].summary["test_accuracy"])
    events = EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / CONFIG.hash))
    events.Reload()
    said = events.PluginTagToContent("hparams")
    assert b"max_norm=5" in b"".join(said.values())


@needs["tensorboard"]
def test_a_killed_run_begins_anew_in_tensorboard(tmp_path: Path) -> None:
    with tracked(Quiet(), ["tensorboard"], tmp_path) as told:
        told.epoch(CONFIG, record(1, loss=7.0))
    with tracked(Quiet(), ["tensorboard"], tmp_path) as told:
        told.epoch(CONFIG, record(1))
        told.epoch(CONFIG, record(2))
        told.done(CONFIG, outcome(2))
    assert scalars(tmp_path)["train_loss"] == [(1, 1.0), (2, 1.0)]


@needs["tensorboard"]
def test_epochs_that_come_after_the_end_are_kept(tmp_path: Path) -> None:
    with tracked(Quiet(), ["tensorboard"], tmp_path) as told:
        told.epoch(CONFIG, record(1))
        told.done(CONFIG, outcome(2))
        told.epoch(CONFIG, record(2))
    found = scalars(tmp_path)
    assert [step for step, _ in found["train_loss"]] == [1, 2]
    assert found["result/test_accuracy"] == [(0, 0.5)]


@needs["mlflow"]
@pytest.mark.slow
def test_mlflow_holds_epochs_configuration_and_result(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with tracked(Quiet(), ["mlflow"], tmp_path) as told:
        told.epoch(CONFIG, record(1))
        told._live.clear()  # a kill: nothing is closed
    watcher = run(tmp_path, "mlflow")
    assert watcher.notes == []
    client = MlflowClient(f"sqlite:///{tmp_path}/trackers/mlflow.db")
    experiment = client.get_experiment_by_name("fenland")
    assert experiment is not None
    runs = {found.info.status: found for found in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["FINISHED", "KILLED"]
    done = runs["FINISHED"]
    assert done.info.run_name == CONFIG.hash
    assert done.data.params["optimizer"] == "sam"
    assert done.data.params["options"] == "max_norm=5"
    assert done.data.params["lr"] == "0.05"
    assert done.data.tags["status"] == "finished"
    assert done.data.metrics["result/test_accuracy"] == watcher.ends[0].summary["test_accuracy"]
    history = client.get_metric_history(done.info.run_id, "train_loss")
    assert [(each.step, each.value) for each in history] == [(r["epoch"], r["train_loss"]) for r in watcher.epochs]


def log_entries(content: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format (blocks of 32 KiB, checksum, length, kind) after 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def key(item: Any) -> str:
    return str(item.key or item.nested_key[0])


@needs["wandb"]
@pytest.mark.slow
def test_wandb_writes_offline_for_several_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    other = dataclasses.replace(CONFIG, seed=1)
    watcher = Quiet()
    with tracked(watcher, ["wandb"], tmp_path) as told:
        for config in (CONFIG, other):
            told.epoch(config, record(1, loss=3.0 + config.seed))
        for config in (CONFIG, other):
            told.epoch(config, record(2))
            told.done(config, dataclasses.replace(outcome(2), run=config.hash))
    wandb.teardown()
    assert watcher.notes == []
    found = {}
    for file in (tmp_path / "trackers" / "wandb").glob("offline-run-*/*.wandb"):
        rows: list[dict[str, Any]] = []
        name, summary = "", {}
        for data in log_entries(file.read_bytes()):
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(data)
            name = entry.run.display_name or name
            if entry.HasField("history"):
                rows.append({key(item): json.loads(item.value_json) for item in entry.history.item})
            summary.update({key(item): json.loads(item.value_json) for item in entry.summary.update})
        found[name] = ([row["train_loss"] for row in rows], summary["result/test_accuracy"])
    assert found == {CONFIG.hash: ([3.0, 1.0], 0.5), other.hash: ([4.0, 1.0], 0.5)}


class Failing:
    """A tracker whose disk is full."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        pass

    def epoch(self, number: int, values: dict[str, float]) -> None:
        raise OSError("No space left on device")

    def end(self, status: str, result: dict[str, float]) -> None:
        raise AssertionError("it was given up")


def test_a_tracker_that_fails_is_given_up_and_the_runs_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", ("json", "", Failing))
    watcher = run(tmp_path, "tensorboard")
    assert watcher.notes == ["tensorboard: OSError: No space left on device; it is given up"]
    assert [end.status for end in watcher.ends] == ["finished"]
    assert len(watcher.epochs) == 2


def test_what_is_unknown_or_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"^logger=aim: choose one of tensorboard, mlflow, wandb"):
        check_trackers(["aim"])
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    with pytest.raises(BadInput, match=r"^logger=wandb: it is not installed; pip install 'fenland\[trackers\]'"):
        check_trackers(["wandb"])


def test_off_by_default(tmp_path: Path) -> None:
    watcher = Quiet()
    with tracked(watcher, [], tmp_path) as told:
        assert told is watcher
    assert list(tmp_path.iterdir()) == []
