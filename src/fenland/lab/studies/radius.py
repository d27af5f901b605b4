"""The radius of SAM's ball: Fig. 1 and Table I of "Investigations on SAM"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from fenland.lab.errors import BadInput
from fenland.lab.study.base import Lab, Sheet, Study, Tables, Verdict
from fenland.lab.study.investigations import CHOICES, PAPER, REPORT, Training, at_least_two, train
from fenland.lab.study.trained import check_device, identified, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn


@dataclass(frozen=True)
class RadiusConfig(Training):
    """What is run.

    Attributes:
        model: the network.
        rhos: radii of SAM.
    """

    model: str = "wrn10-1"
    rhos: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5)

    def __post_init__(self) -> None:
        at_least_two("rhos", self.rhos)
        if min(self.rhos) <= 0:
            raise BadInput("rhos", self.rhos, "give radii > 0")


class Radius(Study[RadiusConfig]):
    """The study `radius`."""

    name: ClassVar[str] = "radius"
    title: ClassVar[str] = "The radius of SAM's ball"
    source: ClassVar[str] = f"{REPORT}, Fig. 1 and Table I"
    question: ClassVar[str] = (
        "How do accuracy and loss of a wide residual network depend on SAM's radius, and what happens at a large one?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "The report says WideResNet and not which: preset paper takes WRN-16-8, as davda54/sam does.",
        "It does not say of what the loss in Table I is. Read as: of the test set, cross-entropy. The other reading, "
        "the loss that davda54/sam prints, is the divergence of the smoothed labels (0.9 on the true class) from the "
        "outputs; it is measured at the last weights and judged beside the first.",
        "It calls 200 passes over the data steps; they are epochs here.",
        *CHOICES,
    )
    presets: Mapping[str, RadiusConfig] = {
        "quick": RadiusConfig(),
        "paper": RadiusConfig(**PAPER, model="wrn16-8"),
    }

    def run(self, config: RadiusConfig, lab: Lab) -> Tables:
        """One row a run, and one row a run and epoch."""
        from fenland.lab.studies.radius_losses import smoothed_loss

        check_device(config.device)
        wanted = identified(self.runs(config, lab))
        runs, epochs = train(lab, wanted)
        by_hash = {run.hash: run for run in wanted}
        done = runs.loc[runs["status"] == "finished", "run"]
        found = {
            name: lab.keep("loss", {"run": name}, lambda name=name: smoothed_loss(by_hash[name], lab))["loss"].iloc[0]  # type: ignore[misc]
            for name in lab.track(list(done), len(done), "losses")
        }
        runs = runs.assign(smoothed_loss=runs["run"].map(found).astype(float))
        return {"runs": runs, "epochs": epochs, "data": sources([config.data], lab)}

    def runs(self, config: RadiusConfig, lab: Lab) -> list[RunConfig]:
        """What is trained."""
        return [
            replace(config.one(lab, config.model, "sam", rho, seed), weights=True)
            for rho, seed in product(config.rhos, config.seeds)
        ]

    def sheets(self, config: RadiusConfig, tables: Tables) -> list[Sheet]:
        """Table I, published and measured."""
        from fenland.lab.studies.radius_judged import sheet

        return [sheet(config, tables)]

    def figures(self, config: RadiusConfig, tables: Tables) -> list[Drawn]:
        """Accuracy and loss by epoch, and accuracy at the end."""
        from fenland.lab.studies.radius_judged import draw

        return draw(config, tables)

    def verdicts(self, config: RadiusConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.radius_judged import judge

        return judge(config, tables)
