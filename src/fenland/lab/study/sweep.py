"""A sweep of a study: it is run once for each combination of the values that its fields are set to."""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenland.lab.config import words
from fenland.lab.errors import in_a_line
from fenland.lab.store import locks

if TYPE_CHECKING:
    from rich.console import Console

    from fenland.lab.study.parts import Verdict
    from fenland.lab.study.study import Study

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Setting:
    """One combination and how its study ended."""

    values: dict[str, str]  # of the fields that take several values, as text
    verdicts: tuple[Verdict, ...] | None = None  # of the study; None when it failed
    report: Path | None = None  # its page
    error: str = ""  # one line on why it failed


@dataclass(frozen=True)
class StudyPlan:
    """A study, and what to set for each of its runs."""

    study: Study
    preset: str
    settings: tuple[dict[str, str], ...]
    fields: tuple[str, ...]


def plan(study: Study, preset: str, given: Sequence[str]) -> StudyPlan:
    """Every combination, each checked."""
    from fenland.lab.study.settings import configure

    axes = words.axes(given, type(configure(study, preset)))
    combinations = words.combinations(axes)
    for values in combinations:
        configure(study, preset, values)
    return StudyPlan(study, preset, tuple(combinations), tuple(name for name in axes if len(axes[name]) > 1))


def run(done: StudyPlan, out: Path, console: Console, **options: Any) -> Iterator[Setting]:
    """Run what is not measured yet, each combination in a folder of its own below ``out``.

    One that another sweep is working on is left to it, and read when that has ended.

    Args:
        done: what to run.
        out: output directory.
        console: where progress goes.
        options: what ``fenland.lab.study.run.run_study`` takes besides: workers, data_root, ray, trackers.
    """
    waiting = deque(done.settings)
    passed_over = 0
    while waiting:
        values = waiting.popleft()
        named = {name: values[name] for name in done.fields}
        folder = out / (folder_name(named) if named else done.preset)
        claim = locks.claim(folder / ".live")
        if claim is None:
            waiting.append(values)
            passed_over += 1
            if passed_over >= len(waiting):
                passed_over = 0
                time.sleep(_WAIT_SECONDS)
            continue
        passed_over = 0
        try:
            yield _one(done, values, named, folder, console, options)
        finally:
            claim.release(done=True)


def _one(
    done: StudyPlan,
    values: dict[str, str],
    named: dict[str, str],
    folder: Path,
    console: Console,
    options: Mapping[str, Any],
) -> Setting:
    from fenland.lab.study.run import run_study

    said = ", ".join(f"{name}={value}" for name, value in named.items()) or done.preset
    console.print(f"{done.study.name}: {said}", markup=False, highlight=False, soft_wrap=True)
    try:
        found = run_study(done.study, done.preset, values, folder, console=console, **options)
    # The border of a sweep: whatever one setting raises must not end the others.
    except Exception as error:
        _LOG.info("%s: %s failed\n%s", done.study.name, said, traceback.format_exc())
        return Setting(named, error=in_a_line(error)[:300])
    return Setting(named, found.verdicts, found.report)


def folder_name(values: dict[str, str]) -> str:
    """Values as the name of a folder."""
    text = ",".join(f"{name}={value}" for name, value in values.items())
    name = "".join(each if each.isalnum() or each in "=,.-_+" else "_" for each in text)[:200]
    # Two settings whose names lose what tells them apart would write over each other.
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
