"""Pieces of a study that worker processes can find, and a script that computes some of them."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from fenland.lab.errors import BadInput
from fenland.lab.study import Piece


def roll(seed: int, wait: float = 0.0) -> pd.DataFrame:
    """Sums that depend on the number of threads in their last digits, and where they were made."""
    time.sleep(wait)
    x = torch.randn(4_000_000, generator=torch.Generator().manual_seed(seed))
    return pd.DataFrame({"seed": [seed], "sum": [x.sum().item()], "threads": [torch.get_num_threads()]})


def where(seed: int, wait: float = 0.0) -> pd.DataFrame:
    """The process that computes it."""
    time.sleep(wait)
    return pd.DataFrame({"seed": [seed], "process": [os.getpid()], "parent": [os.getppid()]})


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


def main() -> None:
    """Compute slow pieces in two processes until killed."""
    from rich.console import Console
    from toy import STUDY

    from fenland.lab.study import pieces as module
    from fenland.lab.study.laboratory import Laboratory

    module.START_SECONDS = 0.0
    lab = Laboratory(Path(sys.argv[1]), STUDY, Console(stderr=True), workers=2)
    lab.keep_all(pieces(where, 40, wait=0.5), "slow rolls")


if __name__ == "__main__":
    main()
