"""Processes that run one study in one folder write it one after the other."""

import dataclasses
import io
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from toy import STUDY

from fenland.lab.store import locks
from fenland.lab.study import OURS, Claim, Finding, kept
from fenland.lab.study.run import judge_again, run_study


def console() -> Console:
    return Console(file=io.StringIO(), width=1000)


def slow(measured):
    """Says of which table it is, long after it began."""
    rolls = measured["rolls"]
    time.sleep(0.5)
    return Finding("any", f"{len(rolls)} rolls", True)


@pytest.mark.parametrize("seeds", [("0", "0,1,2"), ("0", "0")], ids=["of others", "of the same"])
def test_two_at_once_judge_their_own_tables(seeds, tmp_path: Path) -> None:
    study = dataclasses.replace(STUDY, claims=(Claim("It is judged", OURS, slow),), figures=())
    found, errors = {}, []

    def one(number: int) -> None:
        try:
            found[number] = run_study(study, overrides={"seeds": seeds[number]}, out=tmp_path, console=console())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number, each in enumerate(seeds):
        assert found[number].verdicts[0].measured == f"{50 * len(each.split(','))} rolls"
    assert not kept.flaw_of(tmp_path / "toy")
    (said,) = kept.read_study(tmp_path / "toy", kept.VERDICTS)["verdicts"]
    assert said["measured"] == f"{len(pd.read_parquet(tmp_path / 'toy/tables/rolls.parquet'))} rolls"
    assert not (tmp_path / "toy/.live").exists()


def test_judging_again_waits_for_who_writes(tmp_path: Path) -> None:
    run_study(STUDY, out=tmp_path, console=console())
    folder = tmp_path / "toy"
    claim = locks.claim(folder / ".live")
    thread = threading.Thread(target=judge_again, args=(folder, lambda name: STUDY))
    before = (folder / "report.html").stat().st_mtime_ns
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    assert (folder / "report.html").stat().st_mtime_ns == before
    claim.release(done=True)
    thread.join()
    assert (folder / "report.html").stat().st_mtime_ns > before


def test_figures_of_an_earlier_configuration_do_not_stay(tmp_path: Path) -> None:
    def named(measured):
        return dataclasses.replace(STUDY.figures[0](measured), name=f"rolls-{measured.config.sides}")

    study = dataclasses.replace(STUDY, figures=[named])
    for sides in ("6", "8"):
        run_study(study, overrides={"sides": sides}, out=tmp_path, console=console())
        found = sorted(path.name for path in (tmp_path / "toy/figures").iterdir())
        assert found == [f"rolls-{sides}.pdf", f"rolls-{sides}.png"]
