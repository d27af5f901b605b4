"""The norm of SAM's ball: Fig. 3 of "Investigations on SAM", and what it leaves out, equal lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fenland.lab.errors import BadInput
from fenland.lab.study.base import Lab, Study, Tables, Verdict
from fenland.lab.study.investigations import CHOICES, PAPER, REPORT, Training, train
from fenland.lab.study.trained import check_device, identified, sources

if TYPE_CHECKING:
    from fenland.lab.config import RunConfig
    from fenland.lab.figures.catalog import Drawn

EUCLID, SIGN, STRETCHED, MATCHED = "L2", "L-inf, sign", "L-inf, stretched", "L-inf, matched"
KINDS = (EUCLID, SIGN, STRETCHED, MATCHED)


@dataclass(frozen=True)
class BallMetricConfig(Training):
    """What is run.

    Attributes:
        model: the network.
        rho: radius, in the norm of each ball.
    """

    model: str = "wrn10-1"
    rho: float = 0.05

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise BadInput("rho", self.rho, "give a radius > 0")


class BallMetric(Study[BallMetricConfig]):
    """The study `ball-metric`."""

    name: ClassVar[str] = "ball-metric"
    title: ClassVar[str] = "The norm of SAM's ball"
    source: ClassVar[str] = f"{REPORT}, section III and Fig. 3"
    question: ClassVar[str] = (
        "Is SAM worse in an L-infinity ball than in the L2 ball, and is that the ball's shape or the length of the "
        "perturbation?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "The report's formula moves each weight by rho along the gradient's sign, the maximiser over the box (LpSAM, "
        "p = inf). Its text says that only the norm in the denominator was exchanged, which stretches the gradient "
        "until its largest element is rho (InfNormSAM). Both are run.",
        "Not in the report: the sign step at the Euclidean length of the L2 one, rho / sqrt(n) for n weights. For the "
        "stretched gradient that would be SAM itself.",
        "A Euclidean length is the mean over steps of the first epoch; that of the sign step is rho * sqrt(n), reached "
        "where no gradient element is zero.",
        "The report says WideResNet and not which: preset paper takes WRN-16-8, as davda54/sam does.",
        *CHOICES,
    )
    presets: Mapping[str, BallMetricConfig] = {
        "quick": BallMetricConfig(),
        "paper": BallMetricConfig(**PAPER, model="wrn16-8"),
    }

    def run(self, config: BallMetricConfig, lab: Lab) -> Tables:
        """One row a run, and one row a run and epoch, with the kind of the ball and the Euclidean length."""
        check_device(config.device)
        weights = count_weights(config, lab)
        plan = self.runs(config, lab, weights)
        names = {run.hash: kind for kind, part in plan.items() for run in part}
        runs, epochs = train(lab, [run for part in plan.values() for run in part])
        runs, epochs = (table.assign(kind=table["run"].map(names)) for table in (runs, epochs))
        boxes = epochs["kind"].isin((SIGN, MATCHED))
        epochs["length"] = epochs["radius"].where(~boxes, epochs["rho"] * math.sqrt(weights))
        return {"runs": runs, "epochs": epochs, "data": sources([config.data], lab)}

    def runs(self, config: BallMetricConfig, lab: Lab, weights: int) -> dict[str, list[RunConfig]]:
        """What is trained, by the kind of the ball.

        Args:
            config: the settings.
            lab: that knows where data are.
            weights: how many the network has.
        """
        box = ("p=inf",)
        methods: dict[str, tuple[str, float, tuple[str, ...]]] = {
            EUCLID: ("sam", config.rho, ()),
            SIGN: ("lpsam", config.rho, box),
            STRETCHED: ("infnormsam", config.rho, ()),
            MATCHED: ("lpsam", config.rho / math.sqrt(weights), box),
        }
        return {
            kind: identified(config.one(lab, config.model, name, rho, seed, options) for seed in config.seeds)
            for kind, (name, rho, options) in methods.items()
        }

    def figures(self, config: BallMetricConfig, tables: Tables) -> list[Drawn]:
        """Accuracy and length by epoch."""
        from fenland.lab.studies.ball_metric_judged import draw

        return draw(config, tables)

    def verdicts(self, config: BallMetricConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        from fenland.lab.studies.ball_metric_judged import judge

        return judge(config, tables)


def count_weights(config: BallMetricConfig, lab: Lab) -> int:
    """How many numbers of the network are trained, on images of this data set."""
    import torch

    from fenland.lab import data
    from fenland.lab.models import build_model

    images = data.load(config.one(lab, config.model, "sam", config.rho, config.seeds[0]))
    with torch.random.fork_rng(), torch.device("meta"):
        model = build_model(config.model, images.shape, len(images.classes))
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
