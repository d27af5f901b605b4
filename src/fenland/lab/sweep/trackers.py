"""Runs in TensorBoard, MLflow and Weights & Biases, through Lightning's loggers, into ``OUT/trackers``. Off by default.

The process that watches a sweep writes, wherever the runs are computed: a worker needs no tracker and no network.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from fenland.arguments import installing
from fenland.lab.config import RunConfig
from fenland.lab.errors import BadInput, one_of

if TYPE_CHECKING:
    from fenland.lab.sweep.runner import Outcome
    from fenland.lab.sweep.watcher import Watcher

Numbers = Mapping[str, Any]
PROJECT = "fenland"
INTERRUPTED = "interrupted"


class Tracker(Protocol):
    """One run in one tracker."""

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Note an epoch's numbers."""

    def end(self, status: str, result: dict[str, float]) -> None:
        """Note the final numbers and close."""


class TensorBoard:
    """``OUT/trackers/tensorboard/HASH``: look at it with ``tensorboard --logdir OUT/trackers/tensorboard``."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        # What a killed process left: the run tells its first epochs again.
        shutil.rmtree(folder / config.hash, ignore_errors=True)
        self._config = config
        self._logger = TensorBoardLogger(folder, name=None, version=config.hash, default_hp_metric=False)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Scalars, the epoch as their step."""
        self._logger.log_metrics(values, step=number)

    def end(self, status: str, result: dict[str, float]) -> None:
        """The configuration and the result as hyper-parameters and their metrics."""
        words = {**_plain(self._config), "status": status}
        self._logger.log_hyperparams(words, {f"result/{name}": value for name, value in result.items()})
        self._logger.finalize("success")


class MLflow:
    """``OUT/trackers/mlflow.db``: ``mlflow ui --backend-store-uri sqlite:///OUT/trackers/mlflow.db``."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        address = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        from lightning.pytorch.loggers.mlflow import MLFlowLogger
        from mlflow.tracking import MlflowClient

        # It would tell of every table that it creates. After the import, which sets the level itself.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        client = MlflowClient(address)
        if client.get_experiment_by_name(PROJECT) is None:
            client.create_experiment(PROJECT, artifact_location=(folder / "mlflow").absolute().as_uri())
        self._logger = MLFlowLogger(PROJECT, config.hash, tracking_uri=address)
        before = os.environ.get("MLFLOW_TRACKING_URI")
        number = str(self._logger.experiment_id)
        # Lightning's logger has set it, for this process and all its children.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ.update({} if before is None else {"MLFLOW_TRACKING_URI": before})
        same = f"attributes.run_name = '{config.hash}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([number], same):
            if run.info.run_id != self._logger.run_id:  # left by a process that was killed
                client.set_terminated(run.info.run_id, "KILLED")
        self._logger.log_hyperparams(_plain(config))

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Metrics, the epoch as their step."""
        self._logger.log_metrics(values, step=number)

    def end(self, status: str, result: dict[str, float]) -> None:
        """The result's numbers as metrics ``result/NAME``, the status as a tag."""
        self._logger.log_metrics({f"result/{name}": value for name, value in result.items()})
        self._logger.experiment.set_tag(self._logger.run_id, "status", status)
        self._logger.finalize({"failed": "failed", INTERRUPTED: "KILLED"}.get(status, "success"))


class WandB:
    """``OUT/trackers/wandb``, offline unless WANDB_MODE says else: ``wandb sync OUT/trackers/wandb/offline-run-*``."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        import wandb
        from lightning.pytorch.loggers.wandb import WandbLogger

        folder.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=PROJECT,
            name=config.hash,
            dir=folder,
            mode=mode,
            reinit="create_new",  # several runs at once
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._logger = WandbLogger(experiment=self._run)
        self._logger.log_hyperparams(_plain(config))

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """A row of the history."""
        self._logger.log_metrics(values, step=number)

    def end(self, status: str, result: dict[str, float]) -> None:
        """The result in the run's summary."""
        self._run.summary.update({"status": status, **{f"result/{name}": value for name, value in result.items()}})
        self._run.finish(exit_code=int(status in ("failed", INTERRUPTED)))


# Name: the package it needs, where it writes below OUT/trackers, and the class.
TRACKERS: dict[str, tuple[str, str, Callable[[Path, RunConfig], Tracker]]] = {
    "tensorboard": ("tensorboard", "tensorboard", TensorBoard),
    "mlflow": ("mlflow", "", MLflow),
    "wandb": ("wandb", "", WandB),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise BadInput("logger", name, one_of(TRACKERS))
        if importlib.util.find_spec(TRACKERS[name][0]) is None:
            raise BadInput("logger", name, f"it is not installed; {installing('trackers')}")


def open_trackers(names: Sequence[str], out: Path, config: RunConfig) -> list[Tracker]:
    """The trackers of one run, under ``out/trackers``."""
    check_trackers(names)
    with _quiet():
        return [TRACKERS[name][2](out / "trackers" / TRACKERS[name][1], config) for name in names]


@contextmanager
def tracked(watcher: Watcher, names: Sequence[str], out: Path) -> Iterator[Watcher]:
    """A watcher that also tells the trackers; without names, the watcher itself.

    A tracker that fails (a full disk, a network) is given up with a note: the runs go on.
    """
    check_trackers(names)
    if not names:
        yield watcher
        return
    with Tracked(watcher, names, out) as told:
        yield told


class Tracked:
    """Passes everything on to a watcher and to the trackers of each run; used by ``tracked``."""

    def __init__(self, watcher: Watcher, names: Sequence[str], out: Path) -> None:
        self._watcher = watcher
        self._names = list(names)
        self._out = out
        self._live: dict[str, dict[str, Tracker]] = {}
        # Ends that came before the last epoch did: workers' epochs travel slower than their results.
        self._ended: dict[str, Outcome] = {}
        self._last: dict[str, int] = {}
        # Epochs come from a thread that follows the workers, ends from the main one.
        self._lock = threading.Lock()

    def __enter__(self) -> Tracked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in list(self._live):
            self._close(run, self._ended.get(run))

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """Note an epoch."""
        values = finite({name: value for name, value in record.items() if name != "epoch"})
        with self._lock:
            self._last[config.hash] = record["epoch"]
            self._each(config, lambda tracker: tracker.epoch(record["epoch"], values))
            outcome = self._ended.get(config.hash)
            if outcome is not None and record["epoch"] == outcome.summary.get("epochs"):
                self._close(config.hash, outcome)
        self._watcher.epoch(config, record)

    def done(self, config: RunConfig, outcome: Outcome) -> None:
        """Note the end; a run that was computed elsewhere is not tracked here."""
        with self._lock:
            self._seen(config, outcome)
        self._watcher.done(config, outcome)

    def _seen(self, config: RunConfig, outcome: Outcome) -> None:
        if outcome.elsewhere:
            return
        self._ended[config.hash] = outcome
        if outcome.status == "failed" or self._last.get(config.hash) == outcome.summary["epochs"]:
            self._each(config, lambda tracker: None)
            self._close(config.hash, outcome)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._watcher.note(text)

    def _each(self, config: RunConfig, tell: Callable[[Tracker], None]) -> None:
        live = self._live.setdefault(config.hash, {})
        for name in list(self._names):
            with self._giving_up(name):
                if name not in live:
                    live[name] = open_trackers([name], self._out, config)[0]
                tell(live[name])

    def _close(self, run: str, outcome: Outcome | None) -> None:
        status = INTERRUPTED if outcome is None else outcome.status
        result = {} if outcome is None else finite(outcome.summary)
        for name, tracker in list(self._live.pop(run).items()):
            with self._giving_up(name):
                tracker.end(status, result)

    @contextmanager
    def _giving_up(self, name: str) -> Iterator[None]:
        try:
            with _quiet():
                yield
        # Whatever a third party's client raises must not end the sweep.
        except Exception as error:
            if name in self._names:
                self._names.remove(name)
            for live in self._live.values():
                live.pop(name, None)
            cause = error.__cause__ or error  # a client that wraps a full disk tells of something else
            self._watcher.note(f"{name}: {type(cause).__name__}: {' '.join(str(cause).split())}; it is given up")


def finite(values: Numbers) -> dict[str, float]:
    """The numbers that are numbers."""
    kinds = (int, float)
    return {n: float(v) for n, v in values.items() if isinstance(v, kinds) and type(v) is not bool and math.isfinite(v)}


def _plain(config: RunConfig) -> dict[str, Any]:
    return {
        name: " ".join(value) if isinstance(value, tuple) else "none" if value is None else value
        for name, value in config.identity().items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The clients' own deprecations are not the user's to cure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
