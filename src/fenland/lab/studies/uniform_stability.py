"""Two runs that differ in one training example: Figs. 4 and 5 of the SSAM paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from fenland.lab.errors import BadInput, one_of
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Panel
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import finished
from fenland.lab.studies.uniform_stability_claims import claims, derived
from fenland.lab.study import Plot, Study
from fenland.lab.study.images import check_device, fetch, identified, sources
from fenland.lab.study.parts import Lab, Measured, Piece, Source, Tables
from fenland.lab.study.recipes import colours, line_of, lines_of
from fenland.lab.study.twins import LINEAR, bounds, follow, neighbour
from fenland.lab.study.words import by
from fenland.lab.training.optimizers import check_optimizer

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig

TITLES = {
    "normalised": "Distance of the two runs, normalised",
    "absolute": "Distance of the two runs |w − w'|",
    "gap": "Generalisation gap: test loss − train loss",
}
CONVEX = "Distance on softmax regression, and its bound"


@dataclass(frozen=True)
class Config:
    """What is run."""

    tasks: tuple[str, ...] = ("mnist/mlp", "cifar10/lenet")  # data and network of Figs. 4 and 5, as "data/model"
    optimizers: tuple[str, ...] = ("sgd", "usam", "ssam-u", "sam", "ssam")  # the paper's own ascent first
    rho: float = 0.05  # radius of those with an ascent
    lr: float = 0.1  # constant learning rate
    batch_size: int = 20  # examples a step
    epochs: int = 12  # of training
    limit: int | None = 500  # train examples; None for all
    pairs: int = 4  # of train sets that differ in one example
    test_examples: int | None = 500  # for the generalisation gap; None for all
    # which distance is judged: "normalised", |w - w'| / sqrt(|w|^2 + |w'|^2), or "absolute", |w - w'|
    measure: Literal["normalised", "absolute"] = "normalised"
    convex: str = "digits"  # data of a softmax regression, for which the bounds hold; empty for none
    convex_optimizers: tuple[str, ...] = ("sgd", "usam", "ssam-u", "sam", "ssam")  # of that
    convex_lr: float = 0.01  # constant learning rate of that
    convex_rho: float = 0.005  # radius of those of them with an ascent; small, or every bound of SAM is the trivial one
    convex_limit: int | None = 500  # train examples of that; None for all
    device: str = "cpu"  # cpu, cuda or mps

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task.count("/") < 1:
                raise BadInput("tasks", task, "write data/model, as in mnist/mlp")
        if self.pairs < 1:
            raise BadInput("pairs", self.pairs, "give at least 1; intervals need 2")
        for name in (*self.optimizers, *self.convex_optimizers):
            if check_optimizer(name).per_sample:
                raise BadInput("optimizers", name, "it needs one loss an example; " + one_of(["sgd", "sam", "ssam"]))


def measure(config: Config, lab: Lab) -> Tables:
    """One piece a pair and optimizer: a kill loses that one."""
    check_device(config.device)
    fetch([*(task.rpartition("/")[0] for task in config.tasks), config.convex or "digits"], lab)
    runs = identified(runs_of(config, lab))
    about: list[dict[str, Any]] = [
        {"data": run.data, "model": run.model, "optimizer": run.optimizer, "pair": run.seed} for run in runs
    ]
    keys = [{"run": run.identity(), "test": config.test_examples} for run in runs]
    pairs = [
        Piece("pairs", key, partial(follow, run, config.test_examples)) for run, key in zip(runs, keys, strict=True)
    ]
    convex = [number for number, run in enumerate(runs) if run.model == LINEAR]
    limits = [Piece("bounds", keys[number], partial(bounds, runs[number])) for number in convex]
    found = [part.assign(**of) for part, of in zip(lab.keep_all(pairs, "pairs"), about, strict=True)]
    theory = [part.assign(**about[number]) for part, number in zip(lab.keep_all(limits, "bounds"), convex, strict=True)]
    none = pd.DataFrame(columns=["epoch", "bound", "why", "optimizer", "pair"])
    return {
        "pairs": pd.concat(found, ignore_index=True),
        "bounds": pd.concat(theory, ignore_index=True) if theory else none,
        "data": sources([run.data for run in runs], lab),
    }


def runs_of(config: Config, lab: Lab) -> list[RunConfig]:
    """The first member of each pair; the second one has ``replace`` set."""
    every = []
    for pair in range(config.pairs):
        for task in config.tasks:
            name, _, model = task.rpartition("/")
            every += [_run(config, lab, name, model, optimizer, pair) for optimizer in config.optimizers]
        if config.convex:
            every += [_run(config, lab, config.convex, LINEAR, each, pair) for each in config.convex_optimizers]
    return every


def _run(config: Config, lab: Lab, name: str, model: str, optimizer: str, pair: int) -> RunConfig:
    from fenland.lab.config import RunConfig

    linear = model == LINEAR
    radius = config.convex_rho if linear else config.rho
    return RunConfig(
        name, model, optimizer, seed=pair, data_seed=pair,
        rho=None if check_optimizer(optimizer).rho is None else radius,
        lr=config.convex_lr if linear else config.lr, momentum=0.0, weight_decay=0.0, batch_size=config.batch_size,
        epochs=config.epochs, schedule="constant", limit=config.convex_limit if linear else config.limit,
        device=config.device, data_dir=lab.data_dir(name),
    )  # fmt: skip


def draw(measured: Measured) -> list[Drawn]:
    """Distance in both measures and gap for the networks; distance and bounds for the convex problem."""
    table = derived(measured)
    networks, labels = finished(table[table["model"] != LINEAR]), colours(measured.config.optimizers)
    caption = (
        "Means over pairs of train sets that differ in one example, with 95 % intervals. Constant learning rate, no "
        "momentum, no weight decay."
    )

    def panels(column: str) -> list[Panel]:
        rows = networks.assign(value=networks[column])
        return [Panel(lines_of(part, "optimizer", "epoch", title_of), "epoch", str(task), whole=True)
                for task, part in by(rows, "task")]  # fmt: skip

    plots = [
        Plot(column, title, lambda _, column=column: panels(column), caption, labels)  # type: ignore[misc]
        for column, title in TITLES.items() if len(networks)
    ]  # fmt: skip
    if len(measured["bounds"]):
        names = tuple(dict.fromkeys(measured["bounds"]["optimizer"]))
        plots.append(Plot("convex", CONVEX, bounded, CONVEX_WORDS, colours(names)))
    return [plot(measured) for plot in plots]


CONVEX_WORDS = (
    "Points, on top of each other: mean over pairs with 95 % intervals; thin lines: the bound of the expected "
    "distance. Logarithmic axis. One that grows past 2 L times the sum of the learning rates, which any two runs keep, "
    "is cut there. SAM's has a term that no number of examples lowers; SSAM with the same ascent has no bound."
)


def bounded(measured: Measured) -> list[Panel]:
    """Distance and bound by epoch."""
    rows, lines = finished(derived(measured)), []
    rows = rows[(rows["model"] == LINEAR) & (rows["epoch"] > 0)]
    for name, limits in by(measured["bounds"], "optimizer"):
        own = rows[rows["optimizer"] == name]
        lines.append(line_of(title_of(name), own.assign(value=own["distance"]), "epoch", "dots"))
        means = limits.groupby("epoch")["bound"].mean()
        if means.notna().any():
            lines.append(Line(title_of(name), means.index, means, kind="theory"))
    return [Panel(lines, "epoch", log_y=True, whole=True)]


STUDY = Study(
    name="uniform-stability",
    title="One example exchanged: how far do two runs part?",
    source=Source("Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, Figs. 4 and 5"),
    question="How far apart do two networks end whose train sets differ in one example, and how well do they "
    "generalise, under SGD, SAM and SSAM?",
    config=Config,
    paper={
        "batch_size": 128, "epochs": 100, "limit": None, "pairs": 10, "test_examples": None, "convex_rho": 0.002,
        "convex_limit": None, "device": "cuda",
    },
    two_cores={
        "batch_size": 128, "epochs": 30, "limit": None, "pairs": 5, "test_examples": None, "convex_rho": 0.002,
        "convex_limit": None,
    },
    runs=measure,
    trains=lambda config, lab: [each for run in runs_of(config, lab) for each in (run, neighbour(run))],
    claims=claims,
    figures=[draw],
    choices=(
        "We had the captions only: an MLP on MNIST and LeNet on CIFAR-10, constant learning rate, no momentum, "
        "no weight decay. Learning rate, radius, batch, epochs and number of pairs are chosen here.",
        "The captions name distance and gap and state no order. The abstract says that SSAM generalises better than "
        "SAM, and SAM better than SGD, so we expect the same order of their distances.",
        "The distance is |w − w'| / sqrt(|w|² + |w'|²), as Hardt, Recht and Singer 2016 (arXiv 1509.01240) plot it. "
        "|w − w'| is drawn, too, and is judged with --set measure=absolute.",
        "The gap is test loss minus train loss of the run on the unchanged set.",
        "Each pair has its own train set, exchanged example, initial weights and order of batches. Both members of the "
        "pair and all optimizers share them.",
        "The paper's plain SAM has the unnormalised ascent (USAM and SSAM-U here). Foret's ascent, of length rho, is "
        "run beside it. Both have the same rho, in different units.",
        "The bounds of fenland.theory.uniform_stability need convex losses with known constants. Neither network is "
        "convex, so the bounds are compared with a softmax regression, where L = sqrt(2)·R and beta = R²/2, and R is "
        "the length of the longest input with its constant. SSAM with the normalised ascent has no bound there.",
    ),
    beside=(),
)  # fmt: skip
