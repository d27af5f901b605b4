"""Test accuracy on CIFAR over networks and optimizers, in a table with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from fenland.lab.errors import BadInput
from fenland.lab.study.base import Lab, Sheet, Study, Tables, Verdict
from fenland.lab.study.trained import check_device, fetch, identified, radius_of, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

ABOUT = (
    "run", "data", "model", "optimizer", "rho", "seed", "status", "epochs", "test_accuracy", "test_loss",
    "train_accuracy", "train_loss", "seconds", "gradient_evaluations",
)  # fmt: skip


@dataclass(frozen=True)
class ClassificationConfig:
    """What is run.

    Attributes:
        data: data sets.
        factors: on the radii, one a data set.
        models: networks.
        optimizers: compared.
        radii: one an optimizer, on the first data set; 0 where it has none.
        epochs: of training.
        lr: learning rate at the start.
        schedule: of the learning rate.
        batch_size: examples a step.
        momentum: of the base.
        weight_decay: of the base.
        augment: random crop and flip.
        limit: train examples; None for all.
        seeds: of the training.
        device: cpu, cuda or mps.
    """

    data: tuple[str, ...] = ("cifar10",)
    factors: tuple[float, ...] = (1.0,)
    models: tuple[str, ...] = ("mlp", "lenet")
    optimizers: tuple[str, ...] = ("sgd", "sam", "ssam", "asam", "stable-asam")
    radii: tuple[float, ...] = (0.0, 0.05, 0.05, 0.5, 0.5)
    epochs: int = 3
    lr: float = 0.05
    schedule: str = "cosine"
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = False
    limit: int | None = 4000
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, owner in (("factors", "data"), ("radii", "optimizers")):
            if len(getattr(self, name)) != len(getattr(self, owner)):
                raise BadInput(name, getattr(self, name), f"give one value for each of {owner}: {getattr(self, owner)}")
        if len(set(self.optimizers)) < 2:
            raise BadInput("optimizers", self.optimizers, "give at least two to compare")

    @property
    def decides(self) -> bool:
        """Whether a run is long and large enough for its accuracy to speak about the published ones."""
        return self.limit is None and self.epochs >= ENOUGH


# Epochs. Published runs have 200; below half of them the accuracy still rises, and faster methods look better ones.
ENOUGH = 100


class Classification(Study[ClassificationConfig]):
    """The study `classification`."""

    name: ClassVar[str] = "classification"
    title: ClassVar[str] = "Test accuracy on CIFAR"
    source: ClassVar[str] = "Stable SAM, Tan, Zhang, Liu, Wang, Hao 2025 (JMLR 26), arXiv 2401.07250, experiments"
    question: ClassVar[str] = (
        "Does SSAM generalise better than SAM, and the same renormalisation better than plain ASAM, over data sets and "
        "networks?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "The paper's tables were not at hand, so no published accuracy stands beside ours. Its abstract claims that "
        "SSAM performs consistently better than SAM and integrates with SAM's variants.",
        "Preset paper: networks as its summary names them; 200 epochs, batches of 128, lr 0.05 (the authors' code), "
        "cosine, momentum 0.9, weight decay 5e-4, crop and flip, 3 seeds. Its radii are not known: 0.05 for SAM and "
        "SSAM, 0.5 for ASAM on CIFAR-10, twice that on CIFAR-100, as ASAM's authors take them.",
        "The ascent is normalised and SSAM has SAM's radius, not one tuned for it. The paper's own is unnormalised: "
        "--set optimizers=sgd,usam,ssam-u --set radii=0,0.05,0.05; its radius has another unit.",
        "Preset quick: an MLP and a LeNet for three epochs on 4,000 images of CIFAR-10. It shows that the comparison "
        "runs, and what it costs; its accuracies decide nothing.",
        "CIFAR-10 comes from --data-root DIR (DIR/cifar10/*.parquet) or from the Hugging Face hub; without either, "
        "--set data=digits.",
        "Accuracy at the last epoch, never at the best one on the test set. Runs that diverge are counted.",
    )
    presets: Mapping[str, ClassificationConfig] = {
        "quick": ClassificationConfig(),
        "paper": ClassificationConfig(
            data=("cifar10", "cifar100"), factors=(1.0, 2.0), epochs=200, augment=True, limit=None, device="cuda",
            models=("resnet20", "resnet56", "resnext29-32x4d", "wrn28-10", "pyramidnet110-a48"),
        ),
    }  # fmt: skip

    def run(self, config: ClassificationConfig, lab: Lab) -> Tables:
        """One row a run."""
        check_device(config.device)
        fetch(config.data, lab)
        results = lab.train(identified(self.runs(config, lab))).results
        return {"runs": results[list(ABOUT)], "data": sources(config.data, lab)}

    def runs(self, config: ClassificationConfig, lab: Lab) -> list[RunConfig]:
        """What is trained."""
        from fenland.lab.config import RunConfig

        sets = zip(config.data, config.factors, strict=True)
        methods = list(zip(config.optimizers, config.radii, strict=True))
        return [
            RunConfig(
                data, model, optimizer, seed=seed, rho=radius_of(optimizer, factor * radius), lr=config.lr,
                momentum=config.momentum, weight_decay=config.weight_decay, batch_size=config.batch_size,
                epochs=config.epochs, schedule=config.schedule, augment=config.augment, limit=config.limit,
                device=config.device, data_dir=lab.data_dir(data),
            )
            for (data, factor), model, (optimizer, radius), seed in product(sets, config.models, methods, config.seeds)
        ]  # fmt: skip

    def sheets(self, config: ClassificationConfig, tables: Tables) -> list[Sheet]:
        """Accuracies with intervals, one table a data set."""
        from fenland.lab.studies.classification_judged import sheets

        return sheets(config, tables)

    def figures(self, config: ClassificationConfig, tables: Tables) -> list[Drawn]:
        """The same as dots and bars."""
        from fenland.lab.studies.classification_judged import draw

        return draw(config, tables)

    def verdicts(self, config: ClassificationConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.classification_judged import judge

        return judge(config, tables)
