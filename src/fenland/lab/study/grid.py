"""A grid of training runs as data: axes, what each case trains, and the tables that come of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.study.images import check_device, fetch, identified, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.study.parts import Lab, Tables

# Of a run and of an epoch, where it was recorded.
RUN = (
    "run", "data", "model", "optimizer", "options", "rho", "lr", "momentum", "batch_size", "seed", "status", "epochs",
    "test_accuracy", "test_loss", "train_accuracy", "train_loss", "seconds", "gradient_evaluations", "chance",
)  # fmt: skip
EPOCH = (
    "epoch", "lr", "test_accuracy", "test_loss", "train_eval_loss", "grad_norm", "ascent_grad_norm", "gamma", "radius",
)  # fmt: skip
# What a run ends with, which means are taken of.
ENDS = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
# A network counts as failed where it diverged or its accuracy is at most so many times that of guessing.
FAILED = 1.5


@dataclass(frozen=True)
class Training:
    """How networks are trained: the fields that studies share, to be inherited by their configurations.

    Each is the field of `RunConfig` of that name; ``seeds`` are the repetitions.
    """

    data: Any = "digits"
    epochs: int = 20
    lr: float = 0.1
    schedule: str = "step"
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: bool = False
    cutout: int = 0
    cutout_share: float = 1.0
    limit: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"
    precision: str = "32-true"

    def here(self) -> str:
        """What the numbers are about."""
        return f"{self.data}{f' ({self.limit} images)' if self.limit else ''}, {self.epochs} epochs"


@dataclass(frozen=True)
class Field:
    """A field of the configuration that a grid is written for."""

    name: str


class _Fields:
    def __getattr__(self, name: str) -> Field:
        return Field(name)


# ``C.seeds`` stands for the field ``seeds`` of the study's configuration.
C: Any = _Fields()


class Grid:
    """Every combination of the axes is a case, and a case is a training run.

    An axis that is named as a field of `RunConfig` sets that field. So does the configuration, where it has a field of
    the same name and no axis does; and so does ``case``, last. A radius is left out where the optimizer has none.

    Args:
        case: fields of `RunConfig` of a case, from the configuration, the laboratory and the axes that it takes.
        diverged: how a diverged run counts: "out" takes its losses and accuracies away, so that means leave it out;
            "guess" gives it the test accuracy of guessing besides, so that its method does not profit from it, and
            fills ``chance``.
        after: more columns of the tables, from the configuration, the laboratory, the tables and the runs by name.
        axes: in the order of the cases, the first changes slowest; a tuple of values, or a field (``C.seeds``).
    """

    def __init__(
        self,
        case: Callable[..., Mapping[str, Any]] | None = None,
        *,
        diverged: Literal["out", "guess"] = "out",
        after: Callable[[Any, Lab, Tables, Mapping[str, RunConfig]], Tables] | None = None,
        **axes: Sequence[Any] | Field,
    ) -> None:
        self.case, self.diverged, self.after, self.axes = case, diverged, after, axes

    def __call__(self, config: Any, lab: Lab) -> Tables:
        """Train: "runs" has one row a case, "epochs" one a case and epoch, "data" one a data set."""
        check_device(getattr(config, "device", "cpu"))
        cases = self.cases(config)
        fetch((data_of(config, case) for case in cases), lab)
        runs = identified(self.runs(config, lab))
        records = lab.train(runs)
        results = _without_ends(records.results.assign(options=records.results["options"].map(" ".join)))
        if self.diverged == "guess":
            results = _guessed(results, runs)
        plan = pd.DataFrame([{**case, "run": run.hash} for case, run in zip(cases, runs, strict=True)])
        tables = {
            "runs": _of_cases(plan, results, RUN),
            "epochs": _of_cases(plan, _about(records.metrics, results), (*RUN[:6], "seed", "status", *EPOCH)),
            "data": sources([run.data for run in runs], lab),
        }
        return self.after(config, lab, tables, {run.hash: run for run in runs}) if self.after else tables

    def cases(self, config: Any) -> list[dict[str, Any]]:
        """The combinations of the axes."""
        values = [getattr(config, axis.name) if isinstance(axis, Field) else axis for axis in self.axes.values()]
        return [dict(zip(self.axes, each, strict=True)) for each in product(*values)]

    def runs(self, config: Any, lab: Lab) -> list[RunConfig]:
        """What is trained, in the order of the cases."""
        return [self.run_of(config, lab, case) for case in self.cases(config)]

    def run_of(self, config: Any, lab: Lab, case: Mapping[str, Any]) -> RunConfig:
        """One run."""
        from fenland.lab.config import RunConfig
        from fenland.lab.training.optimizers import check_optimizer

        known = {each.name for each in dataclasses.fields(RunConfig)}
        given = {name: getattr(config, name) for name in vars(config) if name in known}
        given |= {name: value for name, value in case.items() if name in known}
        if self.case is not None:
            own = {name: value for name, value in case.items() if name not in known or name in _taken(self.case)}
            given |= self.case(config, lab, **own)
        if check_optimizer(given["optimizer"]).rho is None:
            given["rho"] = None
        return RunConfig(**given, data_dir=lab.data_dir(given["data"]))


def data_of(config: Any, case: Mapping[str, Any]) -> str:
    """The data set of a case."""
    return str(case.get("data", config.data))


def _taken(function: Callable[..., Any]) -> Iterable[str]:
    import inspect

    return inspect.signature(function).parameters


def _of_cases(plan: pd.DataFrame, rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of each case; one run may be that of several."""
    axes = [name for name in plan if name not in columns]
    kept = [name for name in dict.fromkeys(columns) if name in rows]
    return plan[["run", *axes]].merge(rows[kept], on="run")


def _about(metrics: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in ("run", *RUN[1:6], "status") if name in results]
    clash = [name for name in metrics if name in names and name != "run"]
    return metrics.drop(columns=clash).merge(results[names], on="run")


def _without_ends(results: pd.DataFrame) -> pd.DataFrame:
    """Without the last numbers of runs that diverged: broken weights still have an accuracy, which says nothing."""
    lost = results["status"] != "finished"
    return results.assign(**{name: results[name].astype(float).mask(lost) for name in ENDS if name in results})


def _guessed(results: pd.DataFrame, runs: Sequence[RunConfig]) -> pd.DataFrame:
    """Accuracies of runs that diverged as those of guessing."""
    from fenland.lab import data

    shares = {run.data: run for run in runs}
    chance = results["data"].map({name: 1.0 / len(data.load(run).classes) for name, run in shares.items()})
    accuracy = results["test_accuracy"].astype(float)
    return results.assign(chance=chance, test_accuracy=accuracy.where(results["status"] == "finished", chance))


def failed(runs: pd.DataFrame) -> pd.Series:
    """Which of the runs failed: diverged, or no better than guessing."""
    guessing = runs["test_accuracy"].astype(float) <= FAILED * runs["chance"].astype(float)
    return (runs["status"] != "finished") | guessing


def at_least_two(name: str, values: Sequence[Any]) -> None:
    """Refuse fewer."""
    if len(set(values)) < 2:
        raise BadInput(name, values, "give at least two values to compare")


def above_zero(config: Any, *names: str) -> None:
    """Refuse fields, or elements of fields, that are not positive."""
    for name in names:
        value = getattr(config, name)
        if not all(each > 0 for each in (value if isinstance(value, tuple) else (value,))):
            raise BadInput(name, value, "give a value > 0" if not isinstance(value, tuple) else "give values > 0")
