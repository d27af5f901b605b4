"""Live progress: bars with rates and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

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
        every = dict.fromkeys(name for run in runs for name in run.identity())
        fields = [name for name in every if name not in ("seed", "options", "data_id")]
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
        BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        _Detail("{task.fields[detail]}", table_column=Column(no_wrap=False)),
        console=console,
    )
    with bars:
        yield Bars(configs, bars)


class _Detail(TextColumn):
    """Words that stay on one line. Of all columns this one alone gives way on a narrow terminal."""

    def render(self, task: Task) -> Text:
        """The words, cut where the room ends."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class _Course:
    """How far each run is, and how much of the whole work that makes."""

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self.names, self.runs, self.ended = names(configs), len(configs), 0
        self.total, self.worked = sum(map(work, configs)), 0.0
        self.epochs: dict[str, int] = {}
        self._over: set[str] = set()

    def reach(self, config: RunConfig, epoch: int) -> bool:
        """Count a run's epochs up to this one; False where the run has ended already, so that this is old news."""
        if config.hash in self._over:
            return False
        # A run that goes on from a checkpoint begins in the middle; one that starts over repeats itself.
        before = self.epochs.get(config.hash, 0)
        self.epochs[config.hash] = max(epoch, before)
        self.worked += work(config) / config.epochs * (self.epochs[config.hash] - before)
        return True

    def end(self, config: RunConfig) -> None:
        """Count the run as a whole: one that stopped early, or whose news come too late, leaves no work behind."""
        self._over.add(config.hash)
        self.ended += 1
        self.worked += work(config) * (1 - self.epochs.pop(config.hash, 0) / config.epochs)


class Bars:
    """One bar over all work, and one for each run that is going on."""

    def __init__(self, configs: Sequence[RunConfig], bars: Progress) -> None:
        self._bars = bars
        self._course = _Course(configs)
        self._live: dict[str, TaskID] = {}
        self._all = bars.add_task("all runs", total=self._course.total, detail=f"run 1/{self._course.runs}")

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """Move the run's bar and the overall one."""
        if not self._course.reach(config, record["epoch"]):
            return
        if config.hash not in self._live:
            name = self._course.names[config.hash]
            self._live[config.hash] = self._bars.add_task(name, total=config.epochs, detail="")
        detail = f"epoch {record['epoch']}/{config.epochs}, {describe(record)}"
        self._bars.update(self._live[config.hash], completed=self._course.epochs[config.hash], detail=detail)
        self._bars.update(self._all, completed=self._course.worked)

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """Take the run's bar away; a failure stays as a line."""
        self._course.end(config)
        bar = self._live.pop(config.hash, None)
        if bar is not None:
            self._bars.remove_task(bar)
        run = min(self._course.ended + 1, self._course.runs)
        self._bars.update(self._all, completed=self._course.worked, detail=f"run {run}/{self._course.runs}")
        if outcome.status != "finished":
            self.note(ending(config, outcome, self._course.names[config.hash]))

    def note(self, text: str) -> None:
        """Say it above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


class Lines:
    """One line for each run that ends, and an epoch's now and then."""

    def __init__(self, configs: Sequence[RunConfig], console: Console) -> None:
        self._console = console
        self._course = _Course(configs)
        self._spoke = time.monotonic()
        self._paced: tuple[float, float] | None = None  # when the pace is measured from, and the work done by then

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """Count, and speak when it has been quiet for long."""
        if self._course.reach(config, record["epoch"]) and time.monotonic() - self._spoke > _LINE_EVERY_SECONDS:
            head = f"        {self._course.names[config.hash]}: epoch {record['epoch']}/{config.epochs}"
            self.note(f"{head}, {describe(record)}, {self._left()}")

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """Say how the run ended."""
        self._course.end(config)
        place = f"[{self._course.ended}/{self._course.runs}]"
        self.note(f"{place} {ending(config, outcome, self._course.names[config.hash])}, {self._left()}")

    def note(self, text: str) -> None:
        """Say it."""
        self._spoke = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        """Time left at the pace since the first line: what came before it is start-up and loading, not training."""
        left = self._course.total - self._course.worked
        if left <= 0:
            return f"{duration(0.0)} left"
        if self._paced is None:
            self._paced = time.monotonic(), self._course.worked
        begun, before = self._paced
        gained = self._course.worked - before
        if gained <= 0:
            return "time left not known yet"
        return f"{duration((time.monotonic() - begun) * left / gained)} left"


def describe(record: dict[str, Any]) -> str:
    """An epoch in a few words."""
    words = [f"loss {record['train_loss']:.4f}", f"{record['images_per_second']:,.0f} images/s"]
    if record["test_accuracy"] == record["test_accuracy"]:  # not every epoch need be evaluated
        words.insert(1, f"test {record['test_accuracy']:.2%}")
    return ", ".join(words)


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
