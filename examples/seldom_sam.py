"""Is SAM on every second step, at 3/4 of its cost, as good as SAM?"""

from dataclasses import dataclass

from fenland.lab import study as s

SELDOM = {"optimizer": "intervalsam", "rho": 0.1, "options": ("k=2",)}
SAM = {"optimizer": "sam", "rho": 0.1}
METHODS = {"SGD": {"optimizer": "sgd"}, "SAM": SAM, "seldom": SELDOM}
FORET = s.Source("Foret et al. 2021, arXiv 2010.01412")
right = s.Quantity("test_accuracy", "Test accuracy, %", scale=100)
price = s.Quantity("gradient_evaluations")
better = s.paired(right, "method", "SAM", "SGD") > 0
as_good = s.paired(right, "method", "seldom", "SAM").within(0.5)
cheaper = s.ratio(price, "method", "seldom", "SAM") < 0.8
curves = s.curves("curves", "method", [right.by_epoch], title="By epoch")


@dataclass(frozen=True)
class Config(s.Training):
    """What can be set, besides the fields of every training run."""

    model: str = "mlp"
    epochs: int = 6


STUDY = s.Study(
    name="seldom-sam", title="SAM on every second step", source=s.OURS,
    question="Is SAM on every second step as good as SAM?", config=Config,
    paper={"epochs": 100, "seeds": tuple(range(10))},
    runs=s.Grid(lambda config, lab, method: METHODS[method],
                method=tuple(METHODS), seed=s.C.seeds),
    claims=[
        s.Claim("SAM is more accurate than SGD.", FORET, better),
        s.Claim("Seldom is as accurate.", s.OURS, as_good),
        s.Claim("Seldom costs less.", s.OURS, cheaper),
    ],
    figures=[s.Seeds("final", right, "method"), curves],
    choices=("Radius 0.1 for both.",),
)  # fmt: skip
