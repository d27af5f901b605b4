"""A run that is stopped at any step and started again ends as if nothing had happened, bit by bit."""

import dataclasses
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from repeats import numbers
from torch import nn

from fenland.lab.config import RunConfig
from fenland.lab.models import MODELS
from fenland.lab.training import checkpoint, loop
from fenland.lab.training.metrics import EpochRecord
from fenland.lab.training.optimizers import OPTIMIZERS, build_optimizer
from fenland.lab.training.trainer import RunResult, train
from kinds import of_each_kind


class Stop(Exception):
    """What a kill is in a test without processes."""


def small(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Buffers and random numbers in the forward pass, and little else."""
    width = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(width, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, classes)
    )


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "small", small)


CONFIG = RunConfig("digits", "small", "sgd", lr=0.05, batch_size=32, epochs=3, limit=192, augment=True, weights=True)


def same(first: RunResult, second: RunResult) -> None:
    assert numbers(first.records) == numbers(second.records)
    assert first.status == second.status
    assert first.diverged_step == second.diverged_step
    assert first.weights is not None
    assert second.weights is not None
    assert first.weights.keys() == second.weights.keys()
    for name, weight in first.weights.items():  # as bytes: NaN equals itself there
        assert torch.equal(weight.reshape(-1).view(torch.uint8), second.weights[name].reshape(-1).view(torch.uint8))


def interrupted(config: RunConfig, path: Path, at: list[int], monkeypatch: pytest.MonkeyPatch) -> RunResult:
    """The run with a checkpoint at every step, stopped before each of the steps in ``at`` (from 0 in the whole run)."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", math.inf)
    step = loop.Loop._step
    stops = sorted(at)

    def stopping(self: loop.Loop, images: torch.Tensor, labels: torch.Tensor) -> bool:
        if stops and stops[0] == (self.at.epoch - 1) * self.engine.batches.steps + self.at.step:
            stops.pop(0)
            raise Stop
        return step(self, images, labels)

    monkeypatch.setattr(loop.Loop, "_step", stopping)
    for _ in at:
        torch.manual_seed(99)  # the state of the one who calls must not matter
        with pytest.raises(Stop):
            train(config, checkpoint=path)
        assert path.is_file()
    result = train(config, checkpoint=path)
    monkeypatch.undo()
    return result


def rules_of(optimizer: str) -> Any:
    """The rules of an optimizer of the lab; None of a plain one."""
    base = "adamw" if optimizer == "adamw" else "sgd"
    built = build_optimizer(dataclasses.replace(CONFIG, optimizer=optimizer, base=base), small((1, 2, 2), 2), 6)
    return getattr(built, "rules", None)


@pytest.mark.parametrize("optimizer", of_each_kind(OPTIMIZERS, rules_of))
def test_stopped_twice_and_bit_identical(optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = "adamw" if optimizer == "adamw" else "sgd"
    config = dataclasses.replace(CONFIG, optimizer=optimizer, base=base, epochs=2)
    monkeypatch.setitem(MODELS, "small", small)
    whole = train(config)
    with monkeypatch.context() as patch:
        again = interrupted(config, tmp_path / "run.pt", [2, 9], patch)
    same(whole, again)


@pytest.mark.parametrize("at", [1, 5, 6, 11, 17])
def test_stopped_at_any_step(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, optimizer="vasso", base="adamw", lr=0.01, warmup=1.5, label_smoothing=0.1)
    whole = train(config)
    with monkeypatch.context() as patch:
        again = interrupted(config, tmp_path / "run.pt", [at], patch)
    same(whole, again)


def test_a_run_that_is_over_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", math.inf)
    path = tmp_path / "run.pt"
    diverging = dataclasses.replace(CONFIG, lr=1e30, schedule="constant", model="mlp")
    for config in (CONFIG, diverging):
        first = train(config, checkpoint=path)
        with monkeypatch.context() as patch:
            patch.setattr(loop.Loop, "_step", None)  # nothing calls it
            seen: list[EpochRecord] = []
            second = train(config, seen.append, checkpoint=path)
        same(first, second)
        assert tuple(map(repr, seen)) == tuple(map(repr, second.records))
        path.unlink()


def test_records_of_before_are_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    with monkeypatch.context() as patch:
        interrupted(CONFIG, path, [14], patch)
    seen: list[EpochRecord] = []
    train(CONFIG, seen.append, checkpoint=path)
    assert [record.epoch for record in seen] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["another run", "truncated", "empty", "no archive", "another format"])
def test_a_wrong_checkpoint_is_left_out_and_said(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.pt"
    with monkeypatch.context() as patch:
        interrupted(CONFIG, path, [8], patch)
    checkpoint.before(path).unlink()
    config = CONFIG
    if damage == "another run":
        config = dataclasses.replace(CONFIG, seed=1)
    elif damage == "another format":
        torch.save({"format": 0}, path)
    else:
        content = path.read_bytes()
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "no archive": b"words"}[damage])
    with caplog.at_level(logging.WARNING):
        result = train(config, checkpoint=path)
    same(result, train(config))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(f"the checkpoint {path} ")
    assert said[0].endswith(": the run starts anew")
    wrong = {"another run": "belongs to another configuration", "truncated": "is damaged"}
    assert wrong.get(damage, "is no checkpoint of this version of fenland, or cannot be read") in said[0]


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.pt"
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", math.inf)
    step = loop.Loop._step

    def stopping(self: loop.Loop, images: torch.Tensor, labels: torch.Tensor) -> bool:
        if (self.at.epoch, self.at.step) == (2, 3):
            raise Stop
        return step(self, images, labels)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_step", stopping)
        with pytest.raises(Stop):
            train(CONFIG, checkpoint=path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    kept = checkpoint.read(path, CONFIG)
    assert kept is not None
    assert (kept["at"]["epoch"], kept["at"]["step"]) == (2, 2)  # a step before the damaged one
    caplog.clear()
    same(train(CONFIG, checkpoint=path), train(CONFIG))
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == f"the checkpoint {path} is damaged (it does not match its checksum): the one before it is tried"


def test_a_kill_while_a_damaged_checkpoint_is_replaced_leaves_the_whole_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    for step in (1, 2):
        checkpoint.write(path, CONFIG, {"step": step})
    path.write_bytes(path.read_bytes()[:-1])

    def killed(path: Path, content: bytes) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_bytes", killed)
        with pytest.raises(Stop):
            checkpoint.write(path, CONFIG, {"step": 3})
    assert checkpoint.read(path, CONFIG) == {"step": 1}
    checkpoint.write(path, CONFIG, {"step": 3})
    assert checkpoint.read(path, CONFIG) == {"step": 3}
    path.unlink()
    assert checkpoint.read(path, CONFIG) == {"step": 1}


def test_every_flipped_byte_of_a_checkpoint_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    checkpoint.write(path, CONFIG, {"weights": torch.arange(50.0)})
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for at in {0, len(whole) - 1, *torch.randint(len(whole), (300,), generator=generator).tolist()}:
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        assert checkpoint.read(path, CONFIG) is None
    path.write_bytes(whole)
    found = checkpoint.read(path, CONFIG)
    assert found is not None
    assert torch.equal(found["weights"], torch.arange(50.0))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, mark = tmp_path / "run.pt", tmp_path / "mark"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(mark),)

    torch.save({"format": 1, "run": Evil()}, path)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.read(path, CONFIG) is None
    assert not mark.exists()


def test_a_checkpoint_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", math.inf)
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        result = train(CONFIG, checkpoint=tmp_path / "file" / "run.pt")
    assert result.status == "finished"
    assert "cannot write the checkpoint" in caplog.text
    assert "the run goes on without it" in caplog.text


def test_no_half_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "WRITING", math.inf)
    train(CONFIG, checkpoint=tmp_path / "run.pt")
    assert {file.name for file in tmp_path.iterdir()} == {"run.pt", "run.pt.before"}


KILLED = """
import sys
from pathlib import Path
from fenland.lab.config import RunConfig
from fenland.lab.training.trainer import train
from fenland.lab.training import loop
loop.CHECKPOINT_SECONDS, loop.WRITING = 0.02, float("inf")
train(RunConfig.from_dict(eval(sys.argv[2])), checkpoint=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_kill_nine_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    config = dataclasses.replace(CONFIG, model="lenet", optimizer="ssam", epochs=2, limit=None)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), repr(config.as_dict())])
    deadline = time.monotonic() + 120
    seen: set[int] = set()
    # The kill comes when the fourth checkpoint is there, at whatever step.
    while process.poll() is None and len(seen) < 4 and time.monotonic() < deadline:
        if path.exists():
            seen.add(path.stat().st_mtime_ns)
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = checkpoint.read(path, config)  # the last but one, where the kill came between two names
    assert kept is not None
    at = kept["at"]
    assert (at["epoch"], at["step"]) < (3, 0)
    assert at["step"] > 0
    began: list[int] = []
    again = train(config, lambda record: began.append(record.epoch), checkpoint=path)
    assert began == [1, 2]
    same(train(config), again)


def test_slow_writing_makes_checkpoints_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes 0.1 s a write is asked again after 5 s, not after the next step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    writes = []

    def slow(*arguments: object) -> None:
        writes.append(arguments)
        time.sleep(0.1)

    monkeypatch.setattr(checkpoint, "write", slow)
    train(CONFIG, checkpoint=tmp_path / "run.pt")
    assert len(writes) == 1
