"""SAM's edge of stability: the largest eigenvalue of a small full-batch network under each method, beside theory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd

from fenland.lab.figures.plots import Line, Panel
from fenland.lab.study import Claim, Finding, Lab, Measured, Piece, Plot, Source, Study, Tables, interval, ours
from fenland.lab.study.full_batch import METHODS, Setting, settle
from fenland.lab.study.grid import above_zero
from fenland.lab.study.quantities import statement
from fenland.lab.study.recipes import line_of
from fenland.lab.study.rows import gathered
from fenland.lab.study.words import above, below, by, shown, together

LONG = Source("SAM and the Edge of Stability, Long and Bartlett 2024, arXiv 2309.12488")
COHEN = Source("Gradient Descent at the Edge of Stability, Cohen et al. 2021, arXiv 2103.00065")
CLOSE = 0.1  # of the edge
LATE = 0.5  # of the steps, from which on a run counts as settled


@dataclass(frozen=True)
class Config:
    """What is run."""

    images: int = 1000  # of digits, in one full batch
    width: int = 100  # of the hidden tanh layer
    lr: float = 0.8  # eta, no momentum
    rhos: tuple[float, ...] = (0.01, 0.03, 0.1)  # radii of the normalised ascents
    unnormalised: tuple[float, ...] = (0.1, 0.3, 1.0)  # radii of the unnormalised ones
    steps: int = 5000  # taken
    every: int = 50  # steps between two measurements
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of the initial weights

    def __post_init__(self) -> None:
        above_zero(self, "images", "width", "lr", "rhos", "unnormalised", "steps", "every")

    def cases(self) -> list[tuple[str, float]]:
        """(method, rho)."""
        radii = {"GD": (0.0,), "SAM": self.rhos, "SSAM": self.rhos, "USAM": self.unnormalised}
        return [(method, rho) for method in METHODS for rho in radii.get(method, self.unnormalised)]


def measure(config: Config, lab: Lab) -> Tables:
    """A piece a method, radius and seed."""
    setting = Setting(config.images, config.width, config.lr, config.steps, config.every)
    pieces = [
        Piece("steps", {**asdict(setting), "method": method, "rho": rho, "seed": seed},
              partial(settle, setting, method, rho, seed))
        for method, rho in config.cases()
        for seed in config.seeds
    ]  # fmt: skip
    return gathered(lab, pieces, "trainings")


def late(measured: Measured) -> pd.DataFrame:
    """Means over the second half of each run: ``method, rho, seed, eigenvalue, edge, edge_gd, ratio``."""
    rows = measured["steps"]
    rows = rows[rows["step"] >= LATE * rows["step"].max()]
    names = ["eigenvalue", "edge", "edge_gd", "loss"]
    means: pd.DataFrame = rows.groupby(["method", "rho", "seed"], sort=False)[names].mean()
    return means.assign(ratio=means["eigenvalue"] / means["edge"]).reset_index()


@statement
def at_the_edge(measured: Measured, method: str) -> Finding:
    """Whether the eigenvalue settles within 10 % of the method's edge, at every radius."""
    rows = late(measured)
    found = {rho: (interval(part["ratio"]), part) for rho, part in by(rows[rows["method"] == method], "rho")}
    said = "; ".join(
        (f"rho {rho:g}: " if rho else "") + f"{part['eigenvalue'].mean():.3g} for {part['edge'].mean():.3g}, ratio "
        + shown(ratio, ".3f", sign=False)
        for rho, (ratio, part) in found.items()
    )  # fmt: skip
    inside = [answer for each, _ in found.values() for answer in (above(each, 1 - CLOSE), below(each, 1 + CLOSE))]
    return Finding(f"eigenvalue / edge within {100 * CLOSE:g} % of 1", said, together(inside),
                   "Means over the second half of the steps; intervals over seeds.",
                   open="An interval over seeds reaches beyond 10 %.")  # fmt: skip


def flatter(measured: Measured) -> Finding:
    """SAM's eigenvalue against 2/eta."""
    rows = late(measured)
    rows = rows[rows["method"] == "SAM"]
    found = {rho: interval(part["eigenvalue"] / part["edge_gd"]) for rho, part in by(rows, "rho")}
    said = "; ".join(f"rho {rho:g}: {shown(each, '.3f', sign=False)}" for rho, each in found.items())
    return Finding("eigenvalue / (2/eta) below 1 at every radius", said,
                   together(below(each, 1) for each in found.values()),
                   open="An interval reaches 1.")  # fmt: skip


def falls(measured: Measured) -> Finding:
    """SAM's eigenvalue over rho, paired over seeds."""
    rows = late(measured)
    wide = rows[rows["method"] == "SAM"].pivot_table(index="seed", columns="rho", values="eigenvalue")
    steps = [interval(wide[b] - wide[a]) for a, b in zip(wide, list(wide)[1:], strict=False)]
    said = ", ".join(f"{wide[rho].mean():.3g} at {rho:g}" for rho in wide)
    return Finding("each radius below the one before", said,
                   together(map(below, steps)), open="An interval over seeds reaches 0.")  # fmt: skip


def panels(measured: Measured) -> list[Panel]:
    """Eigenvalue and edge by step, a panel a method, at its middle radius."""
    rows = measured["steps"]
    found = []
    for method in METHODS:
        own = rows[rows["method"] == method]
        radii = sorted(own["rho"].unique())
        rho = radii[len(radii) // 2]
        own = own[own["rho"] == rho]
        lines = [
            line_of("largest eigenvalue", own.assign(value=own["eigenvalue"]), "step"),
            line_of("edge of the method", own.assign(value=own["edge"]), "step"),
            Line("2 / η", own["step"].unique(), own.groupby("step")["edge_gd"].mean()),
        ]
        title = method if method == "GD" else f"{method}, ρ = {rho:g}"
        top = 1.5 * float(own["edge_gd"].max())
        found.append(Panel(lines, "step", title, whole=True, y_limits=(0.0, top)))
    return found


STUDY = Study(
    name="edge-of-stability",
    title="SAM's edge of stability",
    source=LONG,
    question="Where does the largest Hessian eigenvalue of a full-batch network settle under GD, SAM and SSAM, and is "
    "it where the local quadratic model says?",
    config=Config,
    quick={"images": 300, "width": 32, "rhos": (0.03, 0.1), "unnormalised": (0.3,), "steps": 800, "every": 40,
           "seeds": (0, 1, 2)},
    runs=measure,
    claims=[
        Claim("Full-batch gradient descent settles at 2/eta.", COHEN, at_the_edge("GD"), "steps"),
        Claim("Full-batch SAM settles at norm(g)/(2*rho)*(sqrt(1 + 8*rho/(eta*norm(g))) - 1).", LONG,
              at_the_edge("SAM"), "steps"),
        Claim("That lies below 2/eta.", LONG, flatter, "steps"),
        Claim("The larger rho is, the smaller is SAM's largest eigenvalue.", ours("what the edge's formula means"),
              falls, "steps"),
        Claim("SSAM settles where gamma*l*(1 + rho*l/norm(g)) = 2/eta, with the gamma that it has.",
              ours("derived: fenland.theory.edge_curvature"), at_the_edge("SSAM"), "steps"),
        Claim("USAM settles where l*(1 + rho*l) = 2/eta.", ours("the same calculation"), at_the_edge("USAM"), "steps"),
        Claim("SSAM on the unnormalised ascent settles where gamma*l*(1 + rho*l) = 2/eta.",
              ours("derived: fenland.theory.edge_curvature"), at_the_edge("SSAM-U"), "steps"),
    ],
    figures=[
        Plot("steps", "Largest eigenvalue and edge", panels, "Means over seeds, bands are 95 % intervals. The edge is "
             "computed from the gradient norm and gamma of the very step."),
    ],
    choices=(
        "The paper trains on MNIST, CIFAR-10 and a text with larger networks. Here a tanh network of one hidden layer "
        "learns digits by squared error, where gradient descent is known to sharpen up to 2/eta.",
        "The eigenvalue is the algebraically largest of the training loss at w, by Lanczos, with its residual.",
        "SSAM and the unnormalised ascent are not in the paper.",
    ),
)  # fmt: skip
