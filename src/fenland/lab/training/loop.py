"""The loop of one run: epochs, learning rates, means, checkpoints, and when to give up."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fenland.lab.training import checkpoint, state
from fenland.lab.training.engine import Engine
from fenland.lab.training.evaluation import Evaluation
from fenland.lab.training.metrics import NO_TIME, EpochRecord, Seconds, StepMeans, first_lost, means_of
from fenland.lab.training.probe import eigenvalues
from fenland.lab.training.rates import rate
from fenland.lab.training.result import RunResult, diverged
from fenland.lab.training.world import on_cpu

_LOG = logging.getLogger(__name__)

OnEpoch = Callable[[EpochRecord], None]

# Train examples evaluated after each epoch but the last; their loss has a standard error of a hundredth of its spread.
PROBE = 10_000
# At most this long between two checkpoints inside an epoch, and at least so long between two at the ends of epochs.
CHECKPOINT_SECONDS = 30.0
EPOCH_SECONDS = 1.0
# Writing takes at most this share of the time: where it is slow, checkpoints come less often.
WRITING = 0.02
# Steps between two looks at the losses: each waits for the device once.
LOOK_EVERY = 50


_TIMES = ("spent", "before")
_NOT_MEASURED = Evaluation(math.nan, math.nan, math.nan, 0)


@dataclass
class Progress:
    """Where a run is."""

    epoch: int = 1  # the one that is going on, from 1
    step: int = 0  # steps done in it
    spent: Seconds = NO_TIME  # time of training spent in it
    before: Seconds = NO_TIME  # training time of the epochs before
    lost: int | None = None  # the step, from 1 over the whole run, at which it diverged
    records: list[EpochRecord] = field(default_factory=list)  # of the epochs before


class Loop:
    """Trains an engine to the end.

    Args:
        engine: the live objects.
        on_epoch: called with each epoch's record, those of an interrupted beginning too.
        path: the checkpoint, None for none.
    """

    def __init__(self, engine: Engine, on_epoch: OnEpoch | None, path: Path | None) -> None:
        self.engine = engine
        self.config = engine.config
        self.world = engine.world
        self.on_epoch = on_epoch or (lambda record: None)
        self.path = path
        self.at = Progress()
        self.means = StepMeans(engine.device)
        self.saved = time.monotonic()
        self.writing = 0.0  # seconds that the last checkpoint took

    def run(self) -> RunResult:
        """Train from the start or from the checkpoint."""
        self._resume()
        for record in self.at.records if self.world.rank == 0 else ():
            self.on_epoch(record)
        while self.at.epoch <= self.config.epochs and not self._over():
            self._epoch()
        records = tuple(self.at.records)
        status = "diverged" if self._over() else "finished"
        engine = self.engine
        return RunResult(status, records, engine.parameters, self.at.lost, engine.noisy_labels, self._weights())

    def _over(self) -> bool:
        return bool(self.at.records) and diverged(self.at.records[-1])

    def _epoch(self) -> None:
        at = self.at
        factor = self._steps()
        table = self._table()
        record = self._record(factor, table)
        if diverged(record):
            at.lost = (at.epoch - 1) * self.engine.batches.steps + (first_lost(table) or len(table))
        at.records.append(record)
        at.before = at.before.plus(at.spent)
        at.epoch, at.step, at.spent = at.epoch + 1, 0, NO_TIME
        self.means = StepMeans(self.engine.device)
        if self.world.rank == 0:
            self.on_epoch(record)
        if self._due(min(EPOCH_SECONDS, CHECKPOINT_SECONDS)):
            self._save()

    def _steps(self) -> float:
        """The steps of the epoch that are left; the learning rate of the last one."""
        engine, at = self.engine, self.at
        start = engine.clock().since(at.spent)
        current = None
        for images, labels in engine.batches.epoch(at.epoch, start=at.step):
            wanted = rate(self.config, at.epoch, at.step, engine.batches.steps)
            if wanted != current:
                engine.set_rate(wanted)
                current = wanted
            broke = self._step(images, labels)
            at.step += 1
            if broke or (at.step % LOOK_EVERY == 0 and self._hopeless()):
                break
            if self._due(CHECKPOINT_SECONDS):
                at.spent = engine.clock().since(start)
                self._save()
                start = engine.clock().since(at.spent)
        at.spent = engine.clock().since(start)
        return rate(self.config, at.epoch, max(at.step - 1, 0), engine.batches.steps)

    def _step(self, images: Tensor, labels: Tensor) -> bool:
        """Whether the step could not be taken because numbers were not finite; a bug in the step stays an error."""
        try:
            self.means.add(*self.engine.step(images, labels, self.at.step))
        except (FloatingPointError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            if not self.engine.broken():
                raise
            self.means.add(torch.full((), torch.nan, device=self.engine.device), None)
            return True
        return False

    def _table(self) -> Tensor:
        """The epoch's rows, averaged over the processes: the loss of a step is that of its whole batch."""
        table = self.means.rows()
        return self.world.total(table) / self.world.size

    def _hopeless(self) -> bool:
        """A loss is no number, or not one step of the epoch so far was taken."""
        return first_lost(self._table()) is not None

    def _due(self, seconds: float) -> bool:
        """Whether it is time for a checkpoint; several processes ask the first one, now and then."""
        if self.path is None or (self.world.size > 1 and self.at.step % LOOK_EVERY):
            return False
        return self.world.told(time.monotonic() - self.saved >= max(seconds, self.writing / WRITING))

    def _save(self) -> None:
        assert self.path is not None
        begun = time.monotonic()
        times = {name: tuple(getattr(self.at, name)) for name in _TIMES}
        at = {**vars(self.at), **times, "records": [record.as_dict() for record in self.at.records]}
        content = {**state.snapshot(self.engine), "at": at, "rows": self.world.gather(self.means.rows())}
        if self.world.rank == 0:
            try:
                checkpoint.write(self.path, self.config, content)
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
                _LOG.warning("cannot write the checkpoint %s (%s): the run goes on without it", self.path, error)
        self.saved = time.monotonic()
        self.writing = self.saved - begun

    def _resume(self) -> None:
        """Go to where the checkpoint was written, if there is one of this run."""
        if self.path is None:
            return
        content = self.world.told(checkpoint.read(self.path, self.config) if self.world.rank == 0 else None)
        if content is None:
            return
        state.restore(self.engine, content)
        records = [EpochRecord(**record) for record in content["at"]["records"]]
        times = {name: Seconds(*content["at"][name]) for name in _TIMES}
        self.at = Progress(**{**content["at"], **times, "records": records})
        self.means = StepMeans(self.engine.device, content["rows"][self.world.rank])
        _LOG.info("%s goes on at epoch %d, step %d", self.config.label, self.at.epoch, self.at.step + 1)

    def _weights(self) -> dict[str, Tensor] | None:
        if not self.config.weights:
            return None
        return {name: on_cpu(tensor) for name, tensor in self.engine.model.state_dict().items()}

    def _record(self, lr: float, table: Tensor) -> EpochRecord:
        engine, at = self.engine, self.at
        last = at.epoch == self.config.epochs
        train = test = _NOT_MEASURED
        if last or at.epoch % max(self.config.evaluate_every, 1) == 0:
            train, test = engine.evaluate("train", None if last else PROBE), engine.evaluate("test", None)
        spent = at.before.plus(at.spent)
        return EpochRecord(
            epoch=at.epoch,
            lr=lr,
            train_eval_loss=train.loss,
            train_accuracy=train.accuracy,
            train_examples=train.examples,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            test_ece=test.ece,
            gradient_evaluations=engine.evaluations,
            images_per_second=at.step * engine.batches.batch_size / at.spent.wall,
            seconds=spent.wall,
            process_seconds=spent.process,
            **means_of(table),
            **eigenvalues(engine, at.epoch),
        )
