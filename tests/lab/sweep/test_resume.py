"""Killed at any moment, the same command goes on: nothing is lost but the live run, nothing is done twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fenland.lab.store.files import HOST

RUNS = 6


def command(out: Path, workers: int, epochs: int) -> list[str]:
    words = "compare --data digits --model mlp --optimizers sgd sam --seeds 3"
    more = ["--epochs", str(epochs), "--workers", str(workers), "--out", str(out)]
    return [sys.executable, "-m", "fenland.lab.cli", *words.split(), *more]


def stored(out: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in (out / "runs").glob("[!.]*/result.json")}


def start_and_stop(out: Path, workers: int, epochs: int, how: signal.Signals) -> subprocess.Popen[str]:
    """Start a comparison in a process group of its own and signal the group when two runs are stored."""
    process = subprocess.Popen(
        command(out, workers, epochs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(stored(out)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, how)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_nine_and_go_on(tmp_path: Path, workers: int) -> None:
    out, epochs = tmp_path / "out", 40
    process = start_and_stop(out, workers, epochs, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = stored(out)
    assert 2 <= len(before) < RUNS
    # What a writer leaves that is killed between its first file and the rename.
    leftover = out / "runs" / f".tmp-0123456789ab-{HOST}-{process.pid}-0f"
    leftover.mkdir()
    done = subprocess.run(command(out, workers, epochs), capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(before)} of {RUNS} runs are stored" in done.stdout
    after = stored(out)
    assert len(after) == RUNS
    assert {name: after[name] for name in before} == before
    assert sorted(folder.name for folder in (out / "runs").iterdir()) == sorted(after)
    assert (out / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_says_how_to_go_on(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    process = start_and_stop(out, workers, 80, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == f"fenland: interrupted; finished runs are in {out}, the same command goes on from there\n"
    assert 2 <= len(stored(out)) < RUNS
    # Beside whole runs there is at most where the interrupted ones go on from.
    others = [folder.name for folder in (out / "runs").iterdir() if folder.name not in stored(out)]
    assert all(name.startswith(".live-") for name in others)
