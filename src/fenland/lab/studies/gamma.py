"""The ratio gamma of the gradient norms through training: Fig. 3 of the SSAM paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.study.base import Lab, Study, Tables, Verdict
from fenland.lab.study.trained import check_device, fetch, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

MEASURED = ("gamma", "grad_norm", "ascent_grad_norm", "test_accuracy")


@dataclass(frozen=True)
class GammaConfig:
    """What is run.

    Attributes:
        data: that the networks are trained on.
        models: the networks.
        optimizers: "sam" (ascent of length rho) and "usam" (rho times the gradient, the paper's own).
        rhos: radii.
        epochs: of training.
        lr: learning rate at the start.
        schedule: of the learning rate.
        batch_size: examples a step.
        momentum: of the base.
        weight_decay: of the base.
        augment: random crop and flip.
        seeds: of the training.
        device: cpu, cuda or mps.
    """

    data: str = "digits"
    models: tuple[str, ...] = ("mlp", "wrn10-1")
    optimizers: tuple[str, ...] = ("usam", "sam")
    rhos: tuple[float, ...] = (0.01, 0.05, 0.2)
    epochs: int = 10
    lr: float = 0.05
    schedule: str = "cosine"
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in set(self.optimizers) - {"sam", "usam"}:
            raise BadInput("optimizers", name, "the figure is about SAM: sam, usam or both")
        if len(set(self.rhos)) < 2 or min(self.rhos) <= 0:
            raise BadInput("rhos", self.rhos, "give at least two radii > 0 to compare")
        if self.epochs < 3:
            raise BadInput("epochs", self.epochs, "give at least 3: the first third is set against the last")


class Gamma(Study[GammaConfig]):
    """The study `gamma`."""

    name: ClassVar[str] = "gamma"
    title: ClassVar[str] = "Gamma through training"
    source: ClassVar[str] = "Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, Fig. 3"
    question: ClassVar[str] = (
        "How does gamma, the norm of the gradient at w over that at the ascent point, move while SAM trains two "
        "networks, and how does it depend on the radius?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "Only the caption was at hand: it defines gamma, and says SAM, two networks, 200 epochs and the radii 0.01, "
        "0.05, 0.2. It names neither networks nor data, and no value: the claims below are readings, marked as ours.",
        "The paper's SAM climbs rho times the gradient; Foret's, which most people use, climbs rho along it. Both are "
        "run, and their radii are not comparable.",
        "A point is the mean of gamma over the steps of an epoch, then over seeds, with the 95 % interval over seeds.",
        "Preset paper: ResNet-20 and ResNet-56 on CIFAR-10, batches of 128, lr 0.05 (the authors' code), momentum 0.9, "
        "weight decay 5e-4, cosine. Preset quick: an MLP and a residual network of 10 layers on scikit-learn's digits.",
    )
    presets: Mapping[str, GammaConfig] = {
        "quick": GammaConfig(),
        "paper": GammaConfig(
            data="cifar10", models=("resnet20", "resnet56"), epochs=200, batch_size=128, augment=True, device="cuda"
        ),
    }

    def run(self, config: GammaConfig, lab: Lab) -> Tables:
        """One row a run and epoch."""
        check_device(config.device)
        fetch([config.data], lab)
        records = lab.train(self.runs(config, lab))
        about = records.results[["run", "model", "rho", "status"]]
        metrics = records.metrics[["run", "optimizer", "seed", "epoch", *MEASURED]].merge(about, on="run")
        return {"gamma": metrics, "data": sources([config.data], lab)}

    def runs(self, config: GammaConfig, lab: Lab) -> list[RunConfig]:
        """What is trained."""
        from fenland.lab.config import RunConfig

        return [
            RunConfig(
                config.data, model, optimizer, seed=seed, rho=rho, lr=config.lr, momentum=config.momentum,
                weight_decay=config.weight_decay, batch_size=config.batch_size, epochs=config.epochs,
                schedule=config.schedule, augment=config.augment, device=config.device,
                data_dir=lab.data_dir(config.data),
            )
            for model, optimizer, rho, seed in product(config.models, config.optimizers, config.rhos, config.seeds)
        ]  # fmt: skip

    def figures(self, config: GammaConfig, tables: Tables) -> list[Drawn]:
        """Gamma by epoch, one figure an ascent."""
        from fenland.lab.studies.gamma_judged import draw

        return [draw(tables, optimizer) for optimizer in _found(tables["gamma"], config)]

    def verdicts(self, config: GammaConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.gamma_judged import judge

        return judge(tables, _found(tables["gamma"], config))


def _found(table: pd.DataFrame, config: GammaConfig) -> list[str]:
    """The ascents of which a run ended."""
    done = table[table["status"] == "finished"]
    return [name for name in config.optimizers if (done["optimizer"] == name).any()]
