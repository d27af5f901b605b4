"""SGD, SAM and ASAM over architectures: Fig. 4 and Table II of "Investigations on SAM"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from fenland.lab.errors import BadInput
from fenland.lab.study.base import Lab, Sheet, Study, Tables, Verdict
from fenland.lab.study.investigations import CHOICES, PAPER, REPORT, Training, at_least_two, failed, train
from fenland.lab.study.trained import check_device, identified, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

OPTIMIZERS = ("sgd", "sam", "asam")
# What the report calls them, by the beginning of the names here.
FAMILIES = {"resnet": "ResNet", "wrn": "WideResNet", "pyramidnet": "PyramidNet", "vgg": "VGG"}


@dataclass(frozen=True)
class ArchitecturesConfig(Training):
    """What is run.

    Attributes:
        models: networks of the four families, each at most once; VGG also twice, with and without batch norm.
        sam_rho: radius of SAM.
        asam_rho: radius of ASAM.
        eta: of ASAM, which keeps small weights moving.
    """

    epochs: int = 10
    limit: int | None = 320
    models: tuple[str, ...] = ("resnet20", "wrn10-1", "pyramidnet20-a48", "vgg11-plain")
    sam_rho: float = 0.05
    asam_rho: float = 2.0
    eta: float = 0.0

    def __post_init__(self) -> None:
        at_least_two("seeds", self.seeds)
        for name in self.models:
            family_of(name)
        for name in ("sam_rho", "asam_rho"):
            if not getattr(self, name) > 0:
                raise BadInput(name, getattr(self, name), "give a radius > 0")


def family_of(model: str) -> str:
    """What the report calls the network.

    Raises:
        BadInput: it is of none of the four families.
    """
    for start, family in FAMILIES.items():
        if model.startswith(start):
            return family
    raise BadInput(
        "models", model, f"the report has {', '.join(FAMILIES.values())}; names begin with {', '.join(FAMILIES)}"
    )


class Architectures(Study[ArchitecturesConfig]):
    """The study `architectures`."""

    name: ClassVar[str] = "architectures"
    title: ClassVar[str] = "SGD, SAM and ASAM over architectures"
    source: ClassVar[str] = f"{REPORT}, section IV, Fig. 4 and Table II"
    question: ClassVar[str] = (
        "On which networks does ASAM generalise better than SAM and SAM better than SGD, with one setting for all, and "
        "which runs fail?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "The numbers of Table II are not in the text at hand; what the report says about them is judged.",
        "It names families, not sizes: preset paper takes ResNet-20, WRN-16-8, PyramidNet-110 (alpha 48) and VGG-16.",
        "It does not say whether its VGG has batch norm. Both are run: the original VGG has none (vgg16-plain), usual "
        "CIFAR code has it (vgg16). Preset quick has VGG-11 without.",
        "rho = 2 is davda54/sam's ASAM, which has no eta and scales biases too: eta = 0 here. The class of ASAM's "
        "authors has 0.01: --set eta=0.01.",
        "A run counts as failed where it diverged, or ends with an accuracy of at most 1.5 times that of guessing.",
        *CHOICES,
    )
    presets: Mapping[str, ArchitecturesConfig] = {
        "quick": ArchitecturesConfig(),
        "paper": ArchitecturesConfig(
            **{**PAPER, "limit": None},
            models=("resnet20", "wrn16-8", "pyramidnet110-a48", "vgg16", "vgg16-plain"),
        ),
    }

    def run(self, config: ArchitecturesConfig, lab: Lab) -> Tables:
        """One row a run, and one row a run and epoch."""
        check_device(config.device)
        runs, epochs = train(lab, identified(self.runs(config, lab)))
        runs = runs.assign(failed=failed(runs), family=runs["model"].map(family_of))
        return {"runs": runs, "epochs": epochs, "data": sources([config.data], lab)}

    def runs(self, config: ArchitecturesConfig, lab: Lab) -> list[RunConfig]:
        """What is trained."""
        settings: dict[str, tuple[float | None, tuple[str, ...]]] = {
            "sgd": (None, ()),
            "sam": (config.sam_rho, ()),
            "asam": (config.asam_rho, (f"eta={config.eta:g}",)),
        }
        return [
            config.one(lab, model, optimizer, settings[optimizer][0], seed, settings[optimizer][1])
            for model, optimizer, seed in product(config.models, OPTIMIZERS, config.seeds)
        ]

    def sheets(self, config: ArchitecturesConfig, tables: Tables) -> list[Sheet]:
        """Table II as measured, with failed runs."""
        from fenland.lab.studies.architectures_judged import sheet

        return [sheet(config, tables)]

    def figures(self, config: ArchitecturesConfig, tables: Tables) -> list[Drawn]:
        """Accuracy by epoch, a panel a network."""
        from fenland.lab.studies.architectures_judged import draw

        return draw(config, tables)

    def verdicts(self, config: ArchitecturesConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.architectures_judged import judge

        return judge(config, tables)
