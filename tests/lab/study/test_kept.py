"""What studies keep: the seconds of all parts, and nothing that was damaged is read as truth."""

import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console
from rolls import burning
from toy import COUNTS, STUDY

from fenland.lab.cli import main
from fenland.lab.studies import find
from fenland.lab.study.index import write_index
from fenland.lab.study.kept import seconds_of
from fenland.lab.study.run import run_study
from fenland.lab.training import engine


def console() -> Console:
    return Console(file=io.StringIO(), width=1000)


@pytest.mark.slow
def test_a_killed_study_tells_the_seconds_of_all_its_parts(tmp_path):
    """Ten pieces of 0.4 s of processor time each: a process is killed after the first few, this one does the rest."""
    script = Path(__file__).with_name("rolls.py")
    process = subprocess.Popen([sys.executable, str(script), "study", str(tmp_path)])
    end = time.monotonic() + 200
    while len(list(tmp_path.glob("pieces/*.json"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = [seconds_of(path) for path in tmp_path.glob("pieces/*.parquet")]
    first = sum(each for each in before if each)
    assert first >= 0.8
    assert not (tmp_path / "toy/config.json").exists()
    begun = time.process_time()
    done = run_study(burning(), out=tmp_path, console=console())
    here = time.process_time() - begun
    assert 4.0 <= done.seconds < first + here
    assert done.seconds - first < here  # the last process alone would tell no more than this
    assert run_study(burning(), out=tmp_path, console=console()).seconds == pytest.approx(done.seconds, abs=0.01)


def test_training_counts_the_seconds_of_its_process(tmp_path, monkeypatch):
    """On a wall's clock that runs a thousand times too fast, as if others had the machine nearly for themselves."""
    fast = SimpleNamespace(perf_counter=lambda: 1000 * time.perf_counter(), process_time=time.process_time)
    monkeypatch.setattr(engine, "time", fast)
    small = {"models": "mlp", "optimizers": "sam", "rhos": "0.01,0.05", "epochs": "3", "seeds": "0", "limit": "128"}
    begun = time.process_time()
    done = run_study(find("gamma"), "quick", small, tmp_path, console=console())
    here = time.process_time() - begun
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert sum(each["seconds"] for each in results) > 10 * here
    assert sum(each["process_seconds"] for each in results) < done.seconds < here


def harmed(content: bytes, draw: random.Random) -> bytes:
    """Bytes that are others."""
    at = draw.randrange(len(content))
    return draw.choice(
        [content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :], content[:at], b"",
         content + bytes([draw.randrange(256)]), bytes(len(content)), b"[]"]
    )  # fmt: skip


def test_of_300_random_corruptions_of_pieces_none_is_believed(tmp_path):
    run_study(STUDY, out=tmp_path, console=console())
    draw, paths = random.Random(0), sorted((tmp_path / "pieces").iterdir())
    assert [path.suffix for path in paths] == [".json", ".parquet"] * 2
    missed = []
    for _ in range(300):
        path = draw.choice(paths)
        whole = path.read_bytes()
        path.write_bytes(harmed(whole, draw))
        found = seconds_of(path.with_suffix(".parquet"))
        # A note that says another time, or the same in other words, still vouches for the table.
        note = path.suffix == ".json" and json.loads(whole)["sha256"] in path.read_text(errors="replace")
        if found is not None and not note:
            missed.append((path.name, path.read_bytes()))
        path.write_bytes(whole)
    assert not missed
    assert all(seconds_of(path) is not None for path in paths if path.suffix == ".parquet")


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_of_random_corruptions_of_a_study_none_is_believed(tmp_path, count):
    run_study(STUDY, out=tmp_path, console=console())
    folder = tmp_path / "toy"
    files = [folder / name for name in ("config.json", "environment.json", "verdicts.json", "checksums.json")]
    draw, files = random.Random(1), [*files, folder / "tables/rolls.parquet"]
    for number in range(count):
        path = draw.choice(files)
        whole = path.read_bytes()
        path.write_bytes(harmed(whole, draw))
        page = write_index(tmp_path).read_text()
        assert "is damaged (" in page, number
        assert "Failed: toy" in page
        path.write_bytes(whole)
    assert "is damaged" not in write_index(tmp_path).read_text()


@pytest.mark.parametrize("name", ["config.json", "verdicts.json", "tables/rolls.parquet", "checksums.json"])
@pytest.mark.parametrize("piece", [False, True])
def test_a_damaged_study_is_named_and_measured_again(tmp_path, name, piece):
    first = run_study(STUDY, out=tmp_path, console=console())
    table = pd.read_parquet(tmp_path / "toy/tables/rolls.parquet")
    (tmp_path / "toy" / name).write_bytes(b"{")
    if piece:
        min((tmp_path / "pieces").glob("*.parquet")).write_bytes(b"PAR1")
    before, said = COUNTS["computed"], console()
    again = run_study(STUDY, out=tmp_path, console=said)
    assert not again.reused
    assert again.verdicts == first.verdicts
    assert COUNTS["computed"] - before == piece
    assert f"{tmp_path / 'toy'} is damaged ({name.split('/')[-1]} " in said.file.getvalue()
    assert (".parquet is damaged, and is computed again" in said.file.getvalue()) is piece
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "toy/tables/rolls.parquet"), table, check_exact=True)


def test_commands_name_what_is_damaged(tmp_path, capsys):
    run_study(STUDY, out=tmp_path, console=console())
    (tmp_path / "toy/verdicts.json").write_text("{")
    for command, code in ((["study", "--table"], 2), (["report"], 1)):
        assert main([*command, str(tmp_path)]) == code
        words = capsys.readouterr().err.strip().split("\n")
        assert len(words) == 1
        assert "toy: is damaged (verdicts.json does not match its checksum); run the study again" in words[0]
