"""Stores that several sweeps share, that are killed at any moment, and whose disk is full."""

import dataclasses
import json
import multiprocessing
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from holder import hold

from fenland.lab import cli
from fenland.lab.config import RunConfig
from fenland.lab.store import locks
from fenland.lab.store.runs import Store
from fenland.lab.sweep.runner import BUSY, Outcome, run_one
from fenland.lab.sweep.sweep import sweep
from fenland.lab.training import trainer
from fenland.lab.training.metrics import EpochRecord

BASE = RunConfig("digits", "mlp", "sgd", batch_size=64, epochs=1, limit=128)
RUNS = [dataclasses.replace(BASE, seed=seed) for seed in range(6)]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and mount")


class Silent:
    """A watcher that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        pass

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def silent(record: EpochRecord) -> None:
    pass


def test_one_claim_a_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.claimed("a")
    mine = store.claim("a")
    assert mine is not None
    assert mine.checkpoint == tmp_path / "runs" / ".live-a" / "checkpoint.pt"
    assert store.claimed("a")
    assert store.claim("a") is None
    other = store.claim("b")
    assert other is not None
    other.release(done=True)
    mine.release(done=False)
    assert not store.claimed("a")
    # What was given up keeps its checkpoint, what is done leaves nothing.
    assert [folder.name for folder in store.folder.iterdir()] == [".live-a"]
    store.forget("a")
    assert not list(store.folder.iterdir())


@linux
def test_a_claim_dies_with_its_process(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=hold, args=(tmp_path, ready))
    holder.start()
    try:
        assert ready.wait(60)
        assert Store(tmp_path).claimed("a")
        assert Store(tmp_path).claim("a") is None
    finally:
        holder.kill()
        holder.join()
    assert not Store(tmp_path).claimed("a")


def test_without_locks_runs_go_on_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Unsupported:
        def acquire(self, timeout: float) -> None:
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks, "_lock", lambda path: Unsupported())
    assert run_one(BASE, Store(tmp_path), silent).status == "finished"
    assert "knows no file locks" in caplog.text


def test_a_claimed_run_is_busy_and_a_stored_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    mine = store.claim(BASE.hash)
    assert mine is not None
    assert run_one(BASE, store, silent) == Outcome(BASE.hash, BUSY)
    mine.release(done=False)
    first = run_one(BASE, store, silent)
    assert not first.elsewhere
    monkeypatch.setattr(trainer, "train", None)
    again = run_one(BASE, store, silent)
    assert again.elsewhere
    assert again.summary == first.summary


def test_two_sweeps_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: Counter[str] = Counter()
    original = trainer.train

    def train(config: RunConfig, *more: Any, **options: Any) -> trainer.RunResult:
        trained[config.hash] += 1
        with lock:  # the trainer forks the process's random state, which threads share
            return original(config, *more, **options)

    lock = threading.Lock()
    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr("fenland.lab.sweep.sweep._WAIT_SECONDS", 0.02)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(sweep(RUNS, Store(tmp_path), Silent()))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained == {run.hash: 1 for run in RUNS}
    assert len(Store(tmp_path).runs()) == len(RUNS)
    assert sorted(len(each.outcomes) + len(each.skipped) for each in results) == [6, 6]
    assert sum(len(each.outcomes) for each in results) == 6
    assert not list((tmp_path / "runs").glob(".*"))


def test_a_run_that_another_sweep_gives_up_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, watcher = Store(tmp_path), Silent()
    mine = store.claim(BASE.hash)
    assert mine is not None

    def wait(seconds: float) -> None:
        mine.release(done=False)

    monkeypatch.setattr("fenland.lab.sweep.sweep.time.sleep", wait)
    result = sweep([BASE, RUNS[1]], store, watcher)
    assert [outcome.run for outcome in result.outcomes] == [RUNS[1].hash, BASE.hash]
    assert watcher.notes == ["waiting for 1 runs that another sweep is computing"]


def test_leftovers_of_a_kill_just_after_the_rename_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run_one(BASE, store, silent)
    live = tmp_path / "runs" / f".live-{BASE.hash}"
    live.mkdir()
    (live / "checkpoint.pt").write_bytes(b"x")
    assert sweep([BASE], store, Silent()).skipped == [BASE]
    assert not live.exists()


def test_weights_are_stored_and_added(tmp_path: Path) -> None:
    import torch

    store, kept = Store(tmp_path), dataclasses.replace(BASE, weights=True)
    assert kept.hash == BASE.hash
    sweep([BASE], store, Silent())
    assert (store.finished(BASE.hash), store.finished(BASE.hash, weights=True)) == (True, False)
    assert (store.has(BASE), store.has(kept)) == (True, False)
    before = store.load(BASE.hash).result
    assert len(sweep([kept], store, Silent()).outcomes) == 1
    assert store.has(kept)
    assert store.load(BASE.hash).result == before
    weights = torch.load(tmp_path / "runs" / BASE.hash / "weights.pt", weights_only=True)
    assert sum(each.numel() for each in weights.values()) == before["parameters"]
    assert not list(store.folder.glob(".*"))


def test_a_full_disk_fails_its_runs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas

    original = pandas.DataFrame.to_parquet
    written = []

    def write(frame: Any, file: Any, **more: Any) -> None:
        written.append(file)
        if len(written) == 1:  # that of the first run
            raise OSError(28, "No space left on device")
        original(frame, file, **more)

    monkeypatch.setattr(pandas.DataFrame, "to_parquet", write)
    result = sweep(RUNS[:2], Store(tmp_path), Silent())
    assert [outcome.status for outcome in result.outcomes] == ["failed", "finished"]
    assert result.failed[0].error.startswith("OSError: [Errno 28] No space left on device")
    monkeypatch.undo()
    assert not sweep(RUNS[:2], Store(tmp_path), Silent()).failed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB, or a skip where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@linux
def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    store = Store(small_disk)
    first = sweep(RUNS, store, Silent())
    assert {outcome.status for outcome in first.outcomes} == {"finished", "failed"}
    assert all("No space left on device" in outcome.error for outcome in first.failed)
    # Whatever is there is whole.
    whole = {run.folder.name for run in store.runs()}
    assert whole == {outcome.run for outcome in first.outcomes if outcome.status == "finished"}
    assert all(len(run.metrics()) == 1 for run in store.runs())
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    second = sweep(RUNS, store, Silent())
    assert not second.failed
    assert {config.hash for config in second.skipped} == whole


def test_a_run_that_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    sweep(RUNS[:2], store, Silent())
    broken = store.folder / RUNS[0].hash
    (broken / "config.json").write_text('{"data":')
    assert [run.config.hash for run in store.runs()] == [RUNS[1].hash]
    assert (
        f"left out: DIR={broken}: is damaged (config.json does not match its checksum); start the command"
        in caplog.text
    )
    assert "or remove its folder" in caplog.text


SWEEP = """
    import sys
    from pathlib import Path
    from fenland.lab import cli
    if __name__ == "__main__":
        sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@linux
def test_killed_twice_and_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kill -9 of the command and nobody else: its workers end, no claim stays, and the same command goes on."""
    script = tmp_path / "sweep.py"
    script.write_text(textwrap.dedent(SWEEP))
    out = tmp_path / "out"
    words = "sweep compare --set data=digits --set model=mlp --set optimizer=sgd,sam --set seed=0..3 --set epochs=10"
    command = [*words.split(), "--out", str(out)]

    def stored() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/[!.]*/result.json")}

    seen: list[dict[str, int]] = [{}]
    for workers in (2, 1):
        process = subprocess.Popen(
            [sys.executable, str(script), *command, "--workers", str(workers)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: len(stored()) > len(seen[-1]), 150)
        own = children(process.pid)
        process.kill()
        process.wait()
        assert len(own) >= (2 if workers == 2 else 0)
        wait_for(lambda: not any(alive(each) for each in own))  # noqa: B023
        seen.append(stored())
        assert len(seen[-1]) < 8, "it was to be killed before the end"
    assert cli.main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["stored_before"], content["ran"]) == (len(seen[2]), 8 - len(seen[2]))
    # What is stored was computed once: no kill lost it, no start wrote it again.
    assert seen[1].items() < seen[2].items() < stored().items()
    assert len(stored()) == 8
    assert not list((out / "runs").glob(".*"))


def wait_for(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
