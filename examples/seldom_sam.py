"""A study of one's own: is SAM on every second step, at three quarters of its cost, as good?"""

from dataclasses import dataclass

from fenland.lab.study import (
    OURS,
    C,
    Claim,
    Grid,
    Quantity,
    Seeds,
    Source,
    Study,
    Training,
    curves,
    paired,
    ratio,
)

METHODS = {
    "SGD": {"optimizer": "sgd"},
    "SAM": {"optimizer": "sam", "rho": 0.1},
    "seldom": {"optimizer": "intervalsam", "rho": 0.1, "options": ("k=2",)},
}
FORET = Source("Foret et al. 2021, arXiv 2010.01412")
accuracy = Quantity("test_accuracy", "Test accuracy, %", unit="points", scale=100, form=".2f")


@dataclass(frozen=True)
class Config(Training):
    """What can be set; the other fields are those of every training run."""

    model: str = "mlp"
    epochs: int = 6


STUDY = Study(
    name="seldom-sam",
    title="SAM on every second step",
    source=OURS,
    question="Is SAM on every second step as good as SAM?",
    config=Config,
    paper={"epochs": 100, "seeds": tuple(range(10))},
    runs=Grid(lambda config, lab, method: METHODS[method], method=tuple(METHODS), seed=C.seeds),
    claims=[
        Claim("SAM is more accurate than SGD.", FORET, paired(accuracy, "method", "SAM", "SGD") > 0),
        Claim("Seldom is as accurate.", OURS, paired(accuracy, "method", "seldom", "SAM").within(0.5)),
        Claim("Seldom costs less.", OURS, ratio(Quantity("gradient_evaluations"), "method", "seldom", "SAM") < 0.8),
    ],
    figures=[Seeds("final", accuracy, "method"), curves("curves", "method", [accuracy.by_epoch], title="By epoch")],
    choices=("Radius 0.1 for both.",),
)
