"""The spectrum of the Hessian at the minima that SGD, SAM and SSAM find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict
from fenland.lab.study.trained import check_device, fetch, identified, radius_of, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

ABOUT = ("run", "model", "optimizer", "seed", "status", "train_loss", "train_accuracy", "test_accuracy")


@dataclass(frozen=True)
class SpectrumConfig:
    """What is run.

    Attributes:
        data: that the networks are trained on.
        models: the networks.
        optimizers: compared with the first.
        rho: radius of those with an ascent.
        epochs: of training.
        lr: learning rate at the start.
        schedule: of the learning rate.
        batch_size: examples a step.
        momentum: of the base.
        weight_decay: of the base.
        augment: random crop and flip in training.
        seeds: of the training.
        examples: train images whose mean loss the Hessian is of; None for all.
        count: largest eigenvalues.
        tol: bound on a residual as a share of its eigenvalue.
        products: Hessian-vector products after which the eigenvalues stop.
        draws: random vectors for the trace.
        paths: random vectors for the density.
        steps: Lanczos steps of each.
        device: of the training: cpu, cuda or mps.
    """

    data: str = "digits"
    models: tuple[str, ...] = ("mlp", "lenet")
    optimizers: tuple[str, ...] = ("sgd", "sam", "ssam")
    rho: float = 0.05
    epochs: int = 40
    lr: float = 0.05
    schedule: str = "cosine"
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = False
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    examples: int | None = 500
    count: int = 3
    tol: float = 1e-3
    products: int = 1000
    draws: int = 40
    paths: int = 3
    steps: int = 40
    device: str = "cpu"

    def __post_init__(self) -> None:
        if len(set(self.optimizers)) < 2:
            raise BadInput("optimizers", self.optimizers, "give at least two to compare")


class Spectrum(Study[SpectrumConfig]):
    """The study `spectrum`."""

    name: ClassVar[str] = "spectrum"
    title: ClassVar[str] = "The Hessian at the minima that SGD, SAM and SSAM find"
    source: ClassVar[str] = "Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, abstract"
    question: ClassVar[str] = "Do SAM and SSAM end in flatter minima than SGD, by the eigenvalues of the Hessian?"
    choices: ClassVar[tuple[str, ...]] = (
        "The summary at hand says that SSAM finds flatter minima, as Hessian analyses show; networks, data, radii and "
        "numbers are not in it.",
        "The Hessian is that of the mean cross-entropy over train images without augmentation, in evaluation mode and "
        "without the weight decay, at the last weights.",
        "The ascent is normalised, of length rho; --set optimizers=sgd,usam,ssam-u is the paper's own.",
        "Cross-entropy is flat wherever it is small: a method that fits the data further has smaller eigenvalues for "
        "that alone. So the train losses stand beside every verdict, and eigenvalues are also compared for their loss.",
        "Preset paper: ResNet-20 on CIFAR-10, 200 epochs, batches of 128, lr 0.05, momentum 0.9, weight decay 5e-4, "
        "cosine, augmented; the Hessian over 10,000 images. Preset quick: an MLP and a LeNet on scikit-learn's "
        "digits, 500 of them.",
    )
    presets: Mapping[str, SpectrumConfig] = {
        "quick": SpectrumConfig(),
        "paper": SpectrumConfig(
            data="cifar10", models=("resnet20",), epochs=200, batch_size=128, augment=True, examples=10_000, count=5,
            steps=80, device="cuda",
        ),
    }  # fmt: skip

    def run(self, config: SpectrumConfig, lab: Lab) -> Tables:
        """Train, then measure each finished run: a kill loses the one that was being measured."""
        check_device(config.device)
        fetch([config.data], lab)
        runs = {run.hash: run for run in self.runs(config, lab)}
        results = lab.train(list(runs.values())).results[list(ABOUT)]
        done = results[results["status"] == "finished"]
        pieces = [piece for name in done["run"] for piece in _pieces(config, runs[name], lab)]
        found = [
            table.assign(run=piece.key["run"])
            for table, piece in zip(lab.keep_all(pieces, "spectra"), pieces, strict=True)
        ]
        values, densities = found[::2], found[1::2]
        names = ["run", "model", "optimizer", "seed"]
        every = pd.concat(values, ignore_index=True) if values else pd.DataFrame(columns=["run", "kind"])
        nodes = pd.concat(densities, ignore_index=True) if densities else pd.DataFrame(columns=["run", "node"])
        return {
            "runs": results,
            "spectrum": every.merge(results[names], on="run"),
            "density": nodes.merge(results[names], on="run"),
            "data": sources([config.data], lab),
        }

    def runs(self, config: SpectrumConfig, lab: Lab) -> list[RunConfig]:
        """What is trained, with the names under which it is stored."""
        from fenland.lab.config import RunConfig

        every = [
            RunConfig(
                config.data, model, optimizer, seed=seed, rho=radius_of(optimizer, config.rho), lr=config.lr,
                momentum=config.momentum, weight_decay=config.weight_decay, batch_size=config.batch_size,
                epochs=config.epochs, schedule=config.schedule, augment=config.augment, device=config.device,
                data_dir=lab.data_dir(config.data), weights=True,
            )
            for model, optimizer, seed in product(config.models, config.optimizers, config.seeds)
        ]  # fmt: skip
        return identified(every)

    def figures(self, config: SpectrumConfig, tables: Tables) -> list[Drawn]:
        """Largest eigenvalues and density."""
        from fenland.lab.studies.spectrum_judged import draw

        return draw(config.optimizers, tables)

    def verdicts(self, config: SpectrumConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.spectrum_judged import judge

        return judge(config.optimizers, config.tol, tables)


def _pieces(config: SpectrumConfig, run: RunConfig, lab: Lab) -> tuple[Piece, Piece]:
    """Eigenvalues and density of one run."""
    from fenland.lab.studies.spectrum_measured import Network, density, eigenvalues

    at = Network(run, lab.weights_file(run), config.examples)
    asked = {"examples": config.examples, "run": run.hash}
    ends = {**asked, "count": config.count, "tol": config.tol, "products": config.products, "draws": config.draws}
    nodes = {**asked, "paths": config.paths, "steps": config.steps}
    return (
        Piece("eigenvalues", ends, partial(eigenvalues, at, config)),
        Piece("density", nodes, partial(density, at, config)),
    )
