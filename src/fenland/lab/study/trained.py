"""What the studies that train networks share: radii, devices, paired differences, and what their data are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.store.statistics import Interval, interval

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.study.base import Lab, Tables, Verdict

_JPEG = b"\xff\xd8"  # the first two bytes of every JPEG file


def radius_of(optimizer: str, rho: float) -> float | None:
    """``rho``, or None for an optimizer without an ascent."""
    from fenland.lab.training.optimizers import check_optimizer

    return None if check_optimizer(optimizer).rho is None else rho


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        BadInput: naming the cure.
    """
    import torch

    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device, False):
        found = ", ".join(name for name, there in here.items() if there)
        raise BadInput("device", device, f"torch sees none here; --set device=cpu (here: {found})")


def colours(optimizers: Iterable[str]) -> tuple[str, ...]:
    """Labels of a figure by their titles: a method that other studies show too keeps its colour and line style."""
    from fenland.lab.figures.plots import METHODS
    from fenland.lab.figures.style import title_of

    return tuple(dict.fromkeys((*METHODS, *map(title_of, optimizers))))


def identified(runs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs with the identity of their data, which is computed once a data set: it reads every file."""
    from fenland.lab import data

    found: dict[tuple[str, str | None, str | None], str] = {}
    named = []
    for run in runs:
        key = run.data, run.data_dir, run.test_split
        if key not in found:
            found[key] = data.identify(run).data_id
        named.append(dataclasses.replace(run, data_id=found[key]))
    return named


def fetch(names: Iterable[str], lab: Lab) -> None:
    """Have the hub's data sets here before the first run, so that one error says what all runs would.

    Raises:
        BadInput: one is not to be had, naming where a study looks for it.
    """
    from fenland.lab import data
    from fenland.lab.config import RunConfig

    for name in dict.fromkeys(names):
        if name != "digits" and lab.data_dir(name) is None:
            try:
                data.load(RunConfig(name, "mlp", "sgd"))
            except BadInput as error:
                cure = error.cure.split("; ")[0]
                folder = f"--data-root DIR with {name} as DIR/{name}/*.parquet"
                raise BadInput(
                    error.argument, error.value, f"{cure}; give {folder}, or other data with --set"
                ) from error


def sources(names: Iterable[str], lab: Lab) -> pd.DataFrame:
    """One row a data set: ``data``, ``stored`` ("JPEG" where its local files hold lossy images, else empty)."""
    return pd.DataFrame([{"data": name, "stored": _stored(lab.data_dir(name))} for name in dict.fromkeys(names)])


def _stored(folder: str | None) -> str:
    """How the first train image of a folder is compressed, where that loses something."""
    if folder is None:
        return ""
    from pathlib import Path

    from fenland.lab.data.folder import find

    found = find("data-root", Path(folder))
    first = next(found.read(found.train).encoded())
    content = first.read_bytes() if isinstance(first, Path) else first or b""
    return "JPEG" if content.startswith(_JPEG) else ""


def lossy(tables: Tables) -> str:
    """A sentence on data sets that were read from lossy files; empty where there is none."""
    rows = tables["data"]
    names = [str(name) for name in rows[rows["stored"] == "JPEG"]["data"]]
    if not names:
        return ""
    return (
        f"{', '.join(names)}: the files at hand are JPEG-recompressed, so that absolute numbers lie off those of the "
        "original set; compare methods with each other."
    )


def paired(table: pd.DataFrame, what: str, ours: object, theirs: object, column: str, over: str = "seed") -> Interval:
    """The interval of ``column`` at ``what`` = ours minus that at theirs, over the seeds that have both."""
    wide = table.pivot_table(index=over, columns=what, values=column)
    if ours not in wide or theirs not in wide:
        return interval([])
    return interval((wide[ours] - wide[theirs]).dropna())


def ratio_of(log: Interval) -> Interval:
    """The interval of a ratio from that of its logarithm: a geometric mean over seeds."""
    return Interval(math.exp(log.mean), math.exp(log.low), math.exp(log.high), log.n)


def by(table: pd.DataFrame, column: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The parts of a table with one value of a column each, in order of appearance."""
    for value in table[column].unique():
        yield value, table[table[column] == value]


def above(found: Interval, bound: float = 0.0) -> bool | None:
    """Whether the mean lies above a bound; None where the interval holds it, or there is none."""
    return True if found.low > bound else False if found.high < bound else None


def below(found: Interval, bound: float = 0.0) -> bool | None:
    """Whether the mean lies below a bound; None where the interval holds it, or there is none."""
    return True if found.high < bound else False if found.low > bound else None


def together(answers: Iterable[bool | None]) -> bool | None:
    """A claim about several: false where one is, true where all are, open else."""
    every = list(answers)
    return False if False in every else None if None in every or not every else True


def shown(found: Interval, form: str = ".3g", sign: bool = True) -> str:
    """A mean with its interval."""
    plus = "+" if sign else ""
    if found.n == 0:
        return "not measured"
    if found.n == 1:
        return f"{found.mean:{plus}{form}} (one seed)"
    return f"{found.mean:{plus}{form}} [{found.low:{plus}{form}}, {found.high:{plus}{form}}]"


def lost(table: pd.DataFrame) -> str:
    """A sentence on runs that diverged; empty where none did."""
    runs = table.drop_duplicates(subset=["run"]) if "run" in table else table
    count = int((runs["status"] != "finished").sum())
    return f"{count} of {len(runs)} runs diverged and are left out." if count else ""


def explained(verdicts: Iterable[Verdict], over: str = "seeds") -> list[Verdict]:
    """The verdicts, those that are open for their intervals with a word on that."""
    why = f"Not decided: an interval over {over} reaches to both sides, or there are too few; more {over} would tell."
    return [
        dataclasses.replace(each, note=f"{why} {each.note}".strip())
        if each.holds is None and not each.note.startswith(("Not decided", "No bound"))
        else each
        for each in verdicts
    ]
