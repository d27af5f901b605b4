"""Two runs that differ in one training example: Figs. 4 and 5 of the SSAM paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd

from fenland.lab.errors import BadInput, one_of
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict
from fenland.lab.study.trained import check_device, fetch, radius_of, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

LINEAR = "linear"


@dataclass(frozen=True)
class UniformStabilityConfig:
    """What is run.

    Attributes:
        tasks: data and network of Figs. 4 and 5, as "data/model".
        optimizers: from the least to the most stable, as the paper is read.
        rho: radius of those with an ascent.
        lr: constant learning rate.
        batch_size: examples a step.
        epochs: of training.
        limit: train examples; None for all.
        pairs: of train sets that differ in one example.
        test_examples: for the generalisation gap; None for all.
        measure: which distance is judged: "normalised", |w - w'| / sqrt(|w|^2 + |w'|^2), or "absolute", |w - w'|.
        convex: data of a softmax regression, for which the bounds hold; empty for none.
        convex_optimizers: of that.
        convex_lr: constant learning rate of that.
        convex_rho: radius of those of them with an ascent; small, or every bound of SAM is the trivial one.
        convex_limit: train examples of that; None for all.
        device: cpu, cuda or mps.
    """

    tasks: tuple[str, ...] = ("mnist/mlp", "cifar10/lenet")
    optimizers: tuple[str, ...] = ("sgd", "sam", "ssam")
    rho: float = 0.05
    lr: float = 0.1
    batch_size: int = 20
    epochs: int = 12
    limit: int | None = 500
    pairs: int = 4
    test_examples: int | None = 500
    measure: Literal["normalised", "absolute"] = "normalised"
    convex: str = "digits"
    convex_optimizers: tuple[str, ...] = ("sgd", "usam", "ssam-u", "sam", "ssam")
    convex_lr: float = 0.01
    convex_rho: float = 0.005
    convex_limit: int | None = 500
    device: str = "cpu"

    def __post_init__(self) -> None:
        from fenland.lab.training.optimizers import check_optimizer

        for task in self.tasks:
            if task.count("/") < 1:
                raise BadInput("tasks", task, "write data/model, as in mnist/mlp")
        if self.pairs < 1:
            raise BadInput("pairs", self.pairs, "give at least 1; intervals need 2")
        for name in (*self.optimizers, *self.convex_optimizers):
            if check_optimizer(name).per_sample:
                raise BadInput("optimizers", name, "it needs one loss an example; " + one_of(["sgd", "sam", "ssam"]))


class UniformStability(Study[UniformStabilityConfig]):
    """The study `uniform-stability`."""

    name: ClassVar[str] = "uniform-stability"
    title: ClassVar[str] = "One example exchanged: how far do two runs part?"
    source: ClassVar[str] = "Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, Figs. 4 and 5"
    question: ClassVar[str] = (
        "How far apart do two networks end whose train sets differ in one example, and how well do they generalise, "
        "under SGD, SAM and SSAM?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "Only the captions were at hand: an MLP on MNIST and LeNet on CIFAR-10, constant learning rate, no momentum, "
        "no weight decay. Learning rate, radius, batch, epochs and number of pairs are chosen here.",
        "The captions show distance and gap and state no order. Read from the abstract: SSAM generalises better than "
        "SAM, and SAM than SGD, so their distances should be ordered alike.",
        "Distance: |w − w'| / sqrt(|w|² + |w'|²), as Hardt, Recht and Singer 2016 (arXiv 1509.01240) plot it; |w − w'| "
        "is drawn too, and judged with --set measure=absolute.",
        "Gap: test loss minus train loss of the run on the unchanged set.",
        "Each pair has its own train set, exchanged example, initial weights and order of batches; both members and "
        "all optimizers of a pair share them.",
        "The ascent is normalised; the paper's own is --set optimizers=sgd,usam,ssam-u.",
        "The bounds of fenland.theory.uniform_stability need convex losses with known constants. Neither network is "
        "convex, so they are set beside a softmax regression instead, where L = sqrt(2)·R and beta = R²/2, R the "
        "longest input with its constant. SSAM with the normalised ascent has no bound there.",
    )
    presets: Mapping[str, UniformStabilityConfig] = {
        "quick": UniformStabilityConfig(),
        "paper": UniformStabilityConfig(
            batch_size=128, epochs=100, limit=None, pairs=10, test_examples=None, convex_rho=0.002,
            convex_limit=None, device="cuda",
        ),
    }  # fmt: skip

    def run(self, config: UniformStabilityConfig, lab: Lab) -> Tables:
        """One piece a pair and optimizer: a kill loses that one."""
        from fenland.lab.studies.uniform_stability_pairs import bounds, follow
        from fenland.lab.study.trained import identified

        check_device(config.device)
        fetch([*(task.rpartition("/")[0] for task in config.tasks), config.convex or "digits"], lab)
        runs = identified(self.runs(config, lab))
        keys = [{"run": run.identity(), "test": config.test_examples} for run in runs]
        about: list[dict[str, Any]] = [
            {"data": run.data, "model": run.model, "optimizer": run.optimizer, "pair": run.seed} for run in runs
        ]
        pieces = [
            Piece("pairs", key, partial(follow, run, config.test_examples)) for run, key in zip(runs, keys, strict=True)
        ]
        parts = [found.assign(**of) for found, of in zip(lab.keep_all(pieces, "pairs"), about, strict=True)]
        theory = [
            lab.keep("bounds", key, partial(bounds, run)).assign(**of)
            for run, key, of in zip(runs, keys, about, strict=True)
            if run.model == LINEAR
        ]
        none = pd.DataFrame(columns=["epoch", "bound", "why", "optimizer", "pair"])
        return {
            "pairs": pd.concat(parts, ignore_index=True),
            "bounds": pd.concat(theory, ignore_index=True) if theory else none,
            "data": sources([run.data for run in runs], lab),
        }

    def runs(self, config: UniformStabilityConfig, lab: Lab) -> list[RunConfig]:
        """The first member of each pair; the second one has ``replace`` set."""
        every = []
        for pair in range(config.pairs):
            for task in config.tasks:
                data, _, model = task.rpartition("/")
                every += [_run(config, lab, data, model, name, pair) for name in config.optimizers]
            if config.convex:
                every += [_run(config, lab, config.convex, LINEAR, name, pair) for name in config.convex_optimizers]
        return every

    def figures(self, config: UniformStabilityConfig, tables: Tables) -> list[Drawn]:
        """Distance, gap, and the bounds."""
        from fenland.lab.studies.uniform_stability_judged import draw

        return draw(config.optimizers, tables)

    def verdicts(self, config: UniformStabilityConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.uniform_stability_judged import judge

        return judge(config.optimizers, config.measure, tables)


def _run(config: UniformStabilityConfig, lab: Lab, data: str, model: str, optimizer: str, pair: int) -> RunConfig:
    from fenland.lab.config import RunConfig

    linear = model == LINEAR
    return RunConfig(
        data, model, optimizer, seed=pair, data_seed=pair,
        rho=radius_of(optimizer, config.convex_rho if linear else config.rho),
        lr=config.convex_lr if linear else config.lr, momentum=0.0, weight_decay=0.0, batch_size=config.batch_size,
        epochs=config.epochs, schedule="constant", limit=config.convex_limit if linear else config.limit,
        device=config.device, data_dir=lab.data_dir(data),
    )  # fmt: skip
