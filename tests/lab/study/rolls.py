"""Pieces of a study that worker processes can find, and a script that computes some of them."""

import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from toy import STUDY

from fenland.lab.errors import BadInput
from fenland.lab.study import Piece, Study
from fenland.lab.study import pieces as module
from fenland.lab.study.laboratory import Laboratory
from fenland.lab.study.run import run_study


def roll(seed: int, wait: float = 0.0) -> pd.DataFrame:
    """Sums that depend on the number of threads in their last digits, and where they were made."""
    time.sleep(wait)
    x = torch.randn(4_000_000, generator=torch.Generator().manual_seed(seed))
    return pd.DataFrame({"seed": [seed], "sum": [x.sum().item()], "threads": [torch.get_num_threads()]})


def where(seed: int, wait: float = 0.0) -> pd.DataFrame:
    """The process that computes it."""
    time.sleep(wait)
    return pd.DataFrame({"seed": [seed], "process": [os.getpid()], "parent": [os.getppid()]})


def burn(seed: int, seconds: float) -> pd.DataFrame:
    """Keep the processor busy for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return where(seed)


def burns(config, lab) -> dict[str, pd.DataFrame]:
    """Tables of a study that burns 0.4 s for each of ten seeds."""
    return {"rolls": pd.concat(lab.keep_all(pieces(burn, 10, seconds=0.4), "burns"), ignore_index=True)}


def burning() -> Study:
    """A study that does."""
    return replace(STUDY, runs=burns, claims=(), figures=())


def meet(seed: int, marks: str, here: int) -> pd.DataFrame:
    """Worker processes wait until two have begun, so that a quick one cannot do the work of one that still starts."""
    if os.getpid() != here:
        (Path(marks) / str(os.getpid())).touch()
        end = time.monotonic() + 200
        while len(list(Path(marks).iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.02)
    return where(seed)


def fail(seed: int, bad: int, how: str) -> pd.DataFrame:
    """All but one seed are well."""
    if seed == bad:
        if how == "input":
            raise BadInput("sides", 1, "give at least 2")
        raise ValueError("the die is lost")
    return where(seed)


def die(seed: int, marks: str, times: int) -> pd.DataFrame:
    """Seed 2 kills its process, the first `times` times."""
    mark = Path(marks) / str(len(list(Path(marks).iterdir())))
    if seed == 2 and int(mark.name) < times:
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return where(seed, 0.2)


def pieces(function, count, **values):
    """One a seed."""
    return [Piece("rolls", {"seed": seed}, partial(function, seed, **values)) for seed in range(count)]


def main(what: str, out: Path) -> None:
    """Compute slow pieces in two processes, or a study in this one, until killed."""
    console = Console(stderr=True)
    if what == "study":
        run_study(burning(), out=out, console=console)
        return
    module.START_SECONDS = 0.0
    Laboratory(out, STUDY, console, workers=2).keep_all(pieces(where, 40, wait=0.5), "slow rolls")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
