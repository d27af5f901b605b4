"""Sweeps: what is stored is skipped, failures and dead workers end one run and not the others."""

import dataclasses
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fenland.lab.compare.comparison import _write_request
from fenland.lab.config import RunConfig
from fenland.lab.store.runs import Store
from fenland.lab.sweep import events, settings
from fenland.lab.sweep.planning import Request, plan
from fenland.lab.sweep.progress import Bars, Lines, duration, watch
from fenland.lab.sweep.runner import Outcome
from fenland.lab.sweep.sweep import SweepResult, sweep
from fenland.lab.training import trainer
from fenland.lab.training.metrics import EpochRecord

BASE = RunConfig("digits", "mlp", "sgd", batch_size=64, epochs=2, limit=128)
RUNS = [dataclasses.replace(BASE, seed=seed, optimizer=name) for seed in range(2) for name in ("sgd", "sam")]


class Recorder:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        self.epochs.append((config.hash, record["epoch"]))

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        assert config.hash == outcome.run
        self.outcomes[outcome.run] = outcome


def numbers(store: Store) -> list[Any]:
    """The metrics of all runs, without what a clock says."""
    return [run.metrics().drop(columns=["seconds", "process_seconds", "images_per_second"]) for run in store.runs()]


def test_every_run_once_and_stored_ones_never_again(tmp_path: Path) -> None:
    store, recorder = Store(tmp_path), Recorder()
    first = sweep([*RUNS, RUNS[0]], store, recorder)
    check_first(first, recorder)
    times = {run.folder: run.folder.stat().st_mtime_ns for run in store.runs()}
    extra = dataclasses.replace(BASE, seed=9)
    second = sweep([*RUNS, extra], store, Recorder())
    assert [outcome.run for outcome in second.outcomes] == [extra.hash]
    assert second.skipped == RUNS
    assert all(folder.stat().st_mtime_ns == time for folder, time in times.items())


def check_first(first: SweepResult, recorder: Recorder) -> None:
    assert sorted(outcome.run for outcome in first.outcomes) == sorted(run.hash for run in RUNS)
    assert {run.hash for run in RUNS} == set(recorder.outcomes)
    assert sorted(recorder.epochs) == sorted((run.hash, epoch) for run in RUNS for epoch in (1, 2))
    assert not first.failed
    assert not first.skipped


@pytest.mark.slow
def test_workers_do_the_same_and_give_the_same_numbers(tmp_path: Path) -> None:
    alone, shared, recorder = Store(tmp_path / "1"), Store(tmp_path / "2"), Recorder()
    sweep(RUNS, alone, Recorder())
    check_first(sweep([*RUNS, RUNS[0]], shared, recorder, workers=2), recorder)
    assert all(one.equals(two) for one, two in zip(numbers(alone), numbers(shared), strict=True))
    # What is stored starts no worker.
    assert sweep(RUNS, shared, Recorder(), workers=2).skipped == RUNS


def test_a_failing_run_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    wrong = dataclasses.replace(BASE, batch_size=1000)
    result = sweep([wrong, BASE], Store(tmp_path), Recorder())
    assert [outcome.status for outcome in result.outcomes] == ["failed", "finished"]
    assert result.failed[0].error == "batch_size=1000: give at most 128, the size of the train set"
    assert "Traceback" in result.failed[0].trace
    assert [run.config.hash for run in Store(tmp_path).runs()] == [BASE.hash]


def test_any_error_is_a_failure_of_its_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: RunConfig, on_epoch: Callable[[EpochRecord], None], **more: Any) -> trainer.RunResult:
        if config.seed == 0:
            raise RuntimeError("out of\nmemory")
        return original(config, on_epoch, **more)

    original = trainer.train
    monkeypatch.setattr(trainer, "train", train)
    result = sweep(RUNS, Store(tmp_path), Recorder())
    assert [outcome.error for outcome in result.failed] == ["RuntimeError: out of memory"] * 2
    assert len(Store(tmp_path).runs()) == 2


# The first never comes to its end, the second is still running when they are killed.
DEADLY, BESIDE = (
    dataclasses.replace(BASE, seed=seed, epochs=epochs, limit=None) for seed, epochs in ((0, 1000), (1, 60))
)


class Killer(Recorder):
    """Kills all workers twice, when the run of seed 0 reports and that of seed 1 has begun: the pool, then its next."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[set[int]] = []

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        super().epoch(config, record)
        if config.seed == 0 and any(run == BESIDE.hash for run, _ in self.epochs):
            # Late reports of the dead come too: they must not hit the run that is tried next.
            found = set(workers_of(os.getpid())).difference(*self.killed)
            if found and len(self.killed) < 2:
                self.killed.append(found)
                for process in found:
                    os.kill(process, signal.SIGKILL)


def workers_of(parent: int) -> list[int]:
    """The live worker processes that joblib started for this process, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == parent and b"popen_loky" in command:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers by /proc")
def test_a_run_that_kills_its_worker_fails_alone_and_what_was_lost_with_it_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = sweep([DEADLY, BESIDE, *RUNS[2:]], Store(tmp_path), Killer(), workers=2)
    assert [(each.run, each.error) for each in result.failed] == [
        (DEADLY.hash, "its worker process died twice (out of memory?)")
    ]
    for run in (DEADLY, BESIDE):
        assert f"({run.hash}) is tried once more" in caplog.text
    assert {run.config.hash for run in Store(tmp_path).runs()} == {run.hash for run in (BESIDE, *RUNS[2:])}
    # The failed one keeps its checkpoint, for the next start.
    assert {path.name for path in (tmp_path / "runs").glob(".*")} <= {f".live-{DEADLY.hash}"}


def test_events_arrive_whole_and_in_order(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    path = tmp_path / "events"
    with events.Follower(path, seen.append) as follower:
        for number in range(100):
            events.append(path, {"n": number})
        follower.read()
        assert [event["n"] for event in seen] == list(range(100))
        path.write_bytes(path.read_bytes() + b'{"n": 1')
        events.append(path, {"n": "runs into the line that was cut short"})
        events.append(path, {"n": 100})
    assert [event["n"] for event in seen] == list(range(101))
    # A full disk costs the display its events and no run its life.
    events.append(Path("/dev/full"), {"n": 101})


RECORD = {"epoch": 1, "train_loss": 0.5, "test_accuracy": 0.9, "images_per_second": 1234.5}
SUMMARY = {"epochs": 1, "test_accuracy": 0.9, "test_loss": 0.3, "seconds": 1.0}


def outcome(run: RunConfig, status: str = "finished") -> Outcome:
    return Outcome(run.hash, status, SUMMARY, error="RuntimeError: no [bold]" if status == "failed" else "")


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenland.lab.sweep.progress._LINE_EVERY_SECONDS", 0)
    text = io.StringIO()
    with watch(RUNS, Console(file=text, width=40)) as lines:
        assert isinstance(lines, Lines)
        lines.epoch(RUNS[0], RECORD)
        for run, status in zip(RUNS, ("finished", "diverged", "failed", "finished"), strict=True):
            lines.done(run, outcome(run, status))
        lines.epoch(RUNS[0], RECORD)
        lines.note("waiting")
    said = text.getvalue().splitlines()
    assert said.pop() == "waiting"
    assert len(said) == 5
    assert said[0].startswith("        sgd seed 0: epoch 1/2, loss 0.5000, test 90.00%, 1,234 images/s, ")
    assert said[0].endswith(", time left not known yet")  # no pace from one look: it would count the start-up
    assert said[1].endswith(" s left")
    assert said[1].startswith("[1/4] sgd seed 0: test 90.00%, test loss 0.3000, 1.0 s of training, ")
    assert said[2].startswith("[2/4] sam seed 0: diverged in epoch 1/2, ")
    assert said[3].startswith("[3/4] sgd seed 1: FAILED, RuntimeError: no [bold], ")
    assert said[4].endswith(", 0.0 s left")


def test_bars_on_a_terminal() -> None:
    text = io.StringIO()
    with watch(RUNS, Console(file=text, width=120, force_terminal=True)) as bars:
        assert isinstance(bars, Bars)
        bars.epoch(RUNS[0], RECORD)
        (task,) = [task for task in bars._bars.tasks if task.description == "sgd seed 0"]
        bars.note("waiting")
        # The same epoch again, from a run that started over, is no progress.
        bars.epoch(RUNS[0], RECORD)
        assert task.completed == 1
        assert task.fields["detail"] == "epoch 1/2, loss 0.5000, test 90.00%, 1,234 images/s"
        for run, status in zip(RUNS, ("finished", "diverged", "failed", "finished"), strict=True):
            bars.done(run, outcome(run, status))
        bars.epoch(RUNS[0], RECORD)
        (task,) = bars._bars.tasks
        assert task.completed == pytest.approx(task.total)
    assert "waiting" in text.getvalue()
    assert "sam seed 0: diverged in epoch 1/2" in text.getvalue()
    assert "sgd seed 1: FAILED, RuntimeError: no [bold]" in text.getvalue()


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.25, 42.4, 61, 7260)] == ["0.2 s", "42 s", "1 min 01 s", "2 h 01 min"]


def test_a_radius_of_its_own_counts_wherever_it_stands() -> None:
    for words in (("0.1", "usam=0.2"), ("usam=0.2", "0.1")):
        runs = plan(Request({"model": "mlp"}, ("sgd", "sam", "usam"), words, seeds="1"))
        assert [run.rho for run in runs] == [None, 0.1, 0.2]


@pytest.mark.parametrize(
    ("asked", "baseline"),
    [(("sam", "sgd"), "sgd"), (("sam", "adamw"), "adamw"), (("adamw", "sgd"), "sgd"), (("usam", "sam"), "usam")],
)
def test_the_baseline_is_the_base(asked: tuple[str, ...], baseline: str, tmp_path: Path) -> None:
    base = "adamw" if "adamw" in asked else "sgd"
    runs = [RunConfig("digits", "mlp", name, base=name if name in ("sgd", "adamw") else base) for name in asked]
    _write_request(tmp_path, runs, (), None)
    assert json.loads((tmp_path / "compare.json").read_text())["baseline"] == baseline


def test_a_device_of_another_machine_takes_its_own_precision() -> None:
    (run,) = plan(Request({"model": "mlp", "precision": "16-mixed"}, ("sgd",), seeds="1", device="cuda"))
    assert (run.device, run.precision) == ("cuda", "16-mixed")
    (run,) = settings.plan(["model=mlp", "precision=16-mixed", "optimizer=sgd", "seed=0"], device="cuda").runs
    assert (run.device, run.precision) == ("cuda", "16-mixed")
