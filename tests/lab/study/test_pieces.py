"""Pieces of a study over worker processes: the same tables, whatever happens to the processes."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from rolls import die, fail, meet, pieces, roll, where
from toy import STUDY

from fenland.lab.errors import BadInput
from fenland.lab.study import laboratory
from fenland.lab.study import pieces as module
from fenland.lab.study.laboratory import Laboratory


@pytest.fixture
def at_once(monkeypatch):
    """Processes are worth starting for any work."""
    monkeypatch.setattr(module, "START_SECONDS", 0.0)


@pytest.fixture(scope="module", autouse=True)
def _no_workers_left():
    yield
    module._executor(2).shutdown(wait=True, kill_workers=True)


def lab(out: Path, workers: int, **options) -> Laboratory:
    return Laboratory(out, STUDY, Console(file=options.pop("file", io.StringIO())), workers=workers, **options)


def stored(out: Path) -> list[int]:
    return sorted(pd.read_parquet(path)["seed"].item() for path in (out / "pieces").glob("*.parquet"))


def test_two_processes_give_the_tables_of_one_to_the_last_bit(tmp_path, at_once):
    one, two = (lab(tmp_path / str(n), n).keep_all(pieces(roll, 6), "rolls") for n in (1, 2))
    assert [table["seed"].item() for table in two] == list(range(6))
    for first, second in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
        assert second["threads"].item() == 1
    names = [{path.name: path.read_bytes() for path in (tmp_path / n / "pieces").glob("*.parquet")} for n in "12"]
    assert len(names[0]) == 6
    assert names[0] == names[1]


def test_processes_share_them_and_are_taken_again(tmp_path, at_once):
    found = []
    for name in "ab":
        (tmp_path / name / "marks").mkdir(parents=True)
        work = pieces(meet, 8, marks=str(tmp_path / name / "marks"), here=os.getpid())
        found.append(lab(tmp_path / name, 2).keep_all(work, "rolls"))
    first, second = ([table["process"].item() for table in tables] for tables in found)
    assert first[0] == second[0] == os.getpid()  # the first tells how long the others take
    assert len(set(first[1:])) == 2
    assert set(first[1:]) == set(second[1:])
    assert {table["parent"].item() for tables in found for table in tables[1:]} == {os.getpid()}


@pytest.mark.parametrize(
    ("count", "workers", "options"), [(8, 1, {}), (8, 2, {}), (2, 2, {}), (8, 2, {"ray": "local"})]
)
def test_small_work_stays_here(tmp_path, monkeypatch, count, workers, options):
    """One worker, too little time to be saved, one piece left, or a cluster."""
    if (count, workers, options) != (8, 2, {}):
        monkeypatch.setattr(module, "START_SECONDS", 0.0)
    found = lab(tmp_path, workers, **options).keep_all(pieces(where, count), "rolls")
    assert {table["process"].item() for table in found} == {os.getpid()}


@pytest.mark.parametrize(
    ("seconds", "done", "left", "count", "worth"),
    [(1.0, 0, 99, 2, False), (1.0, 1, 5, 2, False), (1.0, 1, 7, 2, True), (1.0, 1, 5, 4, True), (9.0, 1, 1, 2, False),
     (9.0, 1, 9, 1, False), (4.0, 4, 7, 2, True), (4.0, 4, 5, 2, False)],
)  # fmt: skip
def test_the_rule(seconds, done, left, count, worth):
    """The time saved, that of those left less their share among the workers, must exceed 3 s."""
    assert module._worth(seconds, done, left, count) is worth


def test_what_is_stored_is_not_computed_and_twins_are_computed_once(tmp_path, at_once):
    here = lab(tmp_path, 2)
    (kept,) = here.keep_all(pieces(where, 4)[3:], "rolls")
    found = here.keep_all([*pieces(where, 5), *pieces(where, 5)], "rolls")
    assert found[3].equals(kept)
    assert all(first.equals(second) for first, second in zip(found[:5], found[5:], strict=True))
    assert stored(tmp_path) == list(range(5))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("how", "kind"), [("value", RuntimeError), ("input", BadInput)])
def test_an_exception_names_the_piece_and_loses_no_other(tmp_path, at_once, workers, how, kind):
    words = {"value": r"^ValueError: the die is lost \(piece rolls of seed=2\)$", "input": "^sides=1: give at least 2$"}
    with pytest.raises(kind, match=words[how]):
        lab(tmp_path, workers).keep_all(pieces(fail, 20, bad=2, how=how), "rolls")
    done = stored(tmp_path)
    assert {0, 1} <= set(done)
    assert 2 not in done
    assert len(done) < 10  # no more was begun
    assert len(lab(tmp_path, workers).keep_all(pieces(where, 20), "rolls")) == 20


@pytest.mark.slow
def test_a_worker_that_dies_is_survived_once(tmp_path, at_once):
    (tmp_path / "marks").mkdir()
    deaths = {"marks": str(tmp_path / "marks"), "times": 1}
    assert len(lab(tmp_path, 2).keep_all(pieces(die, 6, **deaths), "rolls")) == 6
    assert len(list((tmp_path / "marks").iterdir())) == 1


@pytest.mark.slow
def test_a_piece_that_kills_its_worker_is_named(tmp_path, at_once):
    (tmp_path / "marks").mkdir()
    deaths = {"marks": str(tmp_path / "marks"), "times": 9}
    with pytest.raises(RuntimeError, match=r"died twice .* \(piece rolls of seed=2\)"):
        lab(tmp_path, 2).keep_all(pieces(die, 6, **deaths), "rolls")
    assert {0, 1} <= set(stored(tmp_path))
    assert 2 not in stored(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_keeps_what_was_done_and_leaves_no_process(tmp_path, at_once, how):
    script = Path(__file__).with_name("rolls.py")
    process = subprocess.Popen([sys.executable, str(script), "pieces", str(tmp_path)], start_new_session=True)
    try:
        assert within(600, lambda: len(list(tmp_path.glob("pieces/*.parquet"))) >= 4)
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # Ctrl-C goes to the whole group
        else:
            process.send_signal(how)
        assert process.wait(200) == -how
    finally:
        process.kill()
        process.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("pieces/*.parquet")}
    assert 4 <= len(before) < 40
    workers = {pd.read_parquet(path)["process"].item() for path in before} - {process.pid}
    assert workers
    assert within(200, lambda: not any(alive(worker) for worker in workers))
    found = lab(tmp_path, 2).keep_all(pieces(where, 40), "rolls")
    assert [table["seed"].item() for table in found] == list(range(40))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def within(seconds, true) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def alive(process) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_progress_is_shown(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(laboratory, "_LINE_EVERY_SECONDS", 0.05)
    file = io.StringIO()
    lab(tmp_path, 2, file=file).keep_all(pieces(where, 6, wait=0.2), "rolls of dice")
    lines = file.getvalue().split("\n")
    assert "  rolls of dice: 3/6" in lines
    assert len(lines) >= 5
