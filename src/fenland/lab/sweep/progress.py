"""Live progress: bars with rates and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fenland.lab.config import RunConfig
from fenland.lab.sweep.runner import Outcome
from fenland.lab.sweep.watcher import Watcher
from fenland.lab.training.optimizers import OPTIMIZERS

# Without a terminal an epoch is reported when this long has passed since the last line.
_LINE_EVERY_SECONDS = 10.0


def work(config: RunConfig) -> float:
    """Gradient evaluations per example: the measure by which runs weigh in the overall bar and its time left."""
    return config.epochs * OPTIMIZERS[config.optimizer].passes


def names(configs: Sequence[RunConfig]) -> dict[str, str]:
    """What to call each run, by its hash: its label, and the values by which runs of its optimizer differ."""
    found = {}
    for optimizer in {config.optimizer for config in configs}:
        runs = [config for config in configs if config.optimizer == optimizer]
        fields = [name for name in runs[0].identity() if name not in ("seed", "options", "data_id")]
        differing = [name for name in fields if len({getattr(run, name) for run in runs}) > 1]
        for run in runs:
            values = [f"{name}={getattr(run, name)}" for name in differing]
            found[run.hash] = " ".join((run.optimizer, *run.options, *values, f"seed {run.seed}"))
    return found


@contextmanager
def watch(configs: Sequence[RunConfig], console: Console) -> Iterator[Watcher]:
    """The watcher that suits the console, for these runs."""
    if not console.is_terminal:
        yield Lines(configs, console)
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=console,
    )
    with bars:
        yield Bars(configs, bars)


class Bars:
    """One bar over all work, and one for each run that is going on.

    Args:
        configs: the runs to come.
        bars: the live display.
    """

    def __init__(self, configs: Sequence[RunConfig], bars: Progress) -> None:
        self._bars = bars
        self._runs = len(configs)
        self._ended = 0
        self._names = names(configs)
        self._live: dict[str, TaskID] = {}
        self._over: set[str] = set()
        self._all = bars.add_task("all runs", total=sum(map(work, configs)), detail=f"run 1/{self._runs}")

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """Move the run's bar and the overall one; an event that comes after its run's end is old news."""
        if config.hash in self._over:
            return
        if config.hash not in self._live:
            self._live[config.hash] = self._bars.add_task(self._names[config.hash], total=config.epochs, detail="")
        # A run that goes on from a checkpoint begins in the middle; one that starts over repeats itself.
        bar = self._live[config.hash]
        further = max(0, record["epoch"] - self._seen(bar))
        self._bars.update(
            bar,
            advance=further,
            detail=f"epoch {record['epoch']}/{config.epochs}, {describe(record)}",
        )
        self._bars.advance(self._all, work(config) / config.epochs * further)

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """Take the run's bar away; a failure stays as a line."""
        self._ended += 1
        self._over.add(config.hash)
        seen = 0.0
        bar = self._live.pop(config.hash, None)
        if bar is not None:
            seen = self._seen(bar)
            self._bars.remove_task(bar)
        # A run that stopped early, or whose events come too late, leaves no work behind.
        self._bars.advance(self._all, work(config) * (1 - seen / config.epochs))
        self._bars.update(self._all, detail=f"run {min(self._ended + 1, self._runs)}/{self._runs}")
        if outcome.status != "finished":
            self._bars.console.print(ending(config, outcome, self._names[config.hash]), markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Say it above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def _seen(self, bar: TaskID) -> float:
        return self._bars.tasks[self._bars.task_ids.index(bar)].completed


class Lines:
    """One line for each run that ends, and an epoch's now and then.

    Args:
        configs: the runs to come.
        console: where the lines go.
    """

    def __init__(self, configs: Sequence[RunConfig], console: Console) -> None:
        self._console = console
        self._runs = len(configs)
        self._ended = 0
        self._names = names(configs)
        self._work = sum(map(work, configs))
        self._worked = 0.0
        self._seen: dict[str, int] = {}
        self._over: set[str] = set()
        self._spoke = time.monotonic()
        self._paced: tuple[float, float] | None = None  # when the pace is measured from, and the work done by then

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """Count, and speak when it has been quiet for long."""
        if config.hash in self._over:
            return
        # A run that goes on from a checkpoint begins in the middle; one that starts over repeats itself.
        further = max(0, record["epoch"] - self._seen.get(config.hash, 0))
        self._seen[config.hash] = self._seen.get(config.hash, 0) + further
        self._worked += work(config) / config.epochs * further
        if time.monotonic() - self._spoke > _LINE_EVERY_SECONDS:
            head = f"        {self._names[config.hash]}: epoch {record['epoch']}/{config.epochs}"
            self._say(f"{head}, {describe(record)}, {self._left()}")

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """Say how the run ended."""
        self._over.add(config.hash)
        self._ended += 1
        self._worked += work(config) * (1 - self._seen.pop(config.hash, 0) / config.epochs)
        self._say(f"[{self._ended}/{self._runs}] {ending(config, outcome, self._names[config.hash])}, {self._left()}")

    def note(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def _left(self) -> str:
        """Time left at the pace since the first line: what came before it is start-up and loading, not training."""
        left = self._work - self._worked
        if left <= 0:
            return f"{duration(0.0)} left"
        if self._paced is None:
            self._paced = time.monotonic(), self._worked
        begun, before = self._paced
        gained = self._worked - before
        if gained <= 0:
            return "time left not known yet"
        return f"{duration((time.monotonic() - begun) * left / gained)} left"

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(record: dict[str, Any]) -> str:
    """An epoch in a few words."""
    accuracy = f"test {record['test_accuracy']:.2%}"
    return f"loss {record['train_loss']:.4f}, {accuracy}, {record['images_per_second']:,.0f} images/s"


def ending(config: RunConfig, outcome: Outcome, name: str) -> str:
    """A run's end in a few words."""
    if outcome.elsewhere:
        return f"{name}: stored by another sweep"
    if outcome.status == "failed":
        return f"{name}: FAILED, {outcome.error}"
    if outcome.status == "diverged":
        return f"{name}: diverged in epoch {outcome.summary['epochs']}/{config.epochs}"
    summary = outcome.summary
    accuracy = f"test {summary['test_accuracy']:.2%}, test loss {summary['test_loss']:.4f}"
    return f"{name}: {accuracy}, {duration(summary['seconds'])} of training"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
