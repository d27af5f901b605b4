"""SGD, SAM and SSAM on quadratics: thresholds, rates, cycles, gamma and noise floors against closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel
from fenland.lab.replicas.convergence import cycles, floors, gammas, rates
from fenland.lab.studies.quadratic_claims import LAWS, NOISES, UNNORMALISED, claims, rows_of
from fenland.lab.study import Lab, Measured, Piece, Plot, Source, Study, Tables
from fenland.lab.study.grid import above_zero
from fenland.lab.study.recipes import beside
from fenland.lab.study.rows import gathered, select
from fenland.lab.study.theory import at_radius
from fenland.theory import convergence, cycle_amplitude, displacement, gamma_bounds, gamma_normalized, stable_lr


@dataclass(frozen=True)
class Config:
    """What is run."""

    eigenvalues: tuple[float, ...] = (4.0, 1.0, 0.25)  # of the quadratic (loss / w^2), all > 0
    radii: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)  # rho of the unnormalised ascent (w per gradient)
    lengths: tuple[float, ...] = (0.05, 0.2)  # rho of the normalised ascent (w)
    grid: float = 0.01  # step of the learning rates, as a share of SGD's limit 2/l_max
    steps: int = 4000  # of every trajectory without noise
    starts: int = 200  # standard normal, the same for every learning rate
    noise: float = 1.0  # standard deviation of gradient noise
    noise_lr: float = 0.1  # learning rate with noise
    noise_steps: int = 400  # steps with noise
    paths: int = 50_000  # with noise, from the minimum
    seed: int = 0  # of starts and noise

    def __post_init__(self) -> None:
        above_zero(self, "eigenvalues")
        if not 0 < self.grid <= 0.25:
            raise BadInput("grid", self.grid, "give a share in (0, 0.25]")

    @property
    def steepest(self) -> float:
        """The largest eigenvalue."""
        return max(self.eigenvalues)

    @property
    def step(self) -> float:
        """Of the learning rates."""
        return self.grid * 2 / self.steepest

    @property
    def lrs(self) -> list[float]:
        """Up to 1.1 times SGD's limit, half a step off it so that no learning rate is a limit itself."""
        return [(k + 0.5) * self.step for k in range(round(1.1 / self.grid))]

    def radii_of(self, method: str) -> tuple[float, ...]:
        """The radii that a method is run with."""
        return {"SGD": (0.0,), "SSAM": self.lengths}.get(method, self.radii)

    def limit(self, method: str, rho: float) -> float:
        """The learning rate up to which theory has it converge."""
        return stable_lr(self.steepest, rho, "SGD" if method == "SSAM" else method)


def measure(config: Config, lab: Lab) -> Tables:
    """One piece a method and radius, and one each for cycles, gamma and noise."""
    shared = {name: getattr(config, name) for name in ("lrs", "steps", "starts")}
    jobs: list[tuple[str, Any, dict[str, Any]]] = [
        ("rates", rates, {**shared, "eigenvalues": config.eigenvalues, "method": m, "rho": rho, "seed": config.seed})
        for m in LAWS
        for rho in config.radii_of(m)
    ]
    below = [lr for lr in config.lrs if lr * config.steepest < 1.9]
    cycle = {**shared, "curvature": config.steepest, "radii": config.lengths, "lrs": below}
    jobs.append(("cycles", cycles, cycle))
    lr = 0.5 / (config.steepest * (1 + max(config.radii) * config.steepest))
    for method in (*UNNORMALISED, "SSAM"):
        modes = config.eigenvalues[:1] if method == "SSAM" else config.eigenvalues
        jobs.append(("gamma", gammas, {"eigenvalues": modes, "method": method, "radii": config.radii_of(method),
                                       "starts": config.starts, "steps": 60, "lr": lr}))  # fmt: skip
    for where in NOISES:
        jobs.append(("noise", floors, {
            "curvature": 1.0, "radii": (0.0, *config.radii), "lr": config.noise_lr, "std": config.noise,
            "where": where, "steps": config.noise_steps, "paths": config.paths, "seed": config.seed,
        }))  # fmt: skip
    pieces = [Piece(name, key, partial(function, **key)) for name, function, key in jobs]
    return gathered(lab, pieces, "parts")


def rates_drawn(measured: Measured) -> list[Panel]:
    """Factor a step against learning rate, one panel a method."""
    config, panels = measured.config, []
    for method in LAWS:
        rho = config.radii_of(method)[-1]
        rows = rows_of(measured, method, rho)
        rows = rows[rows["rate"] < 1.3]
        law = [convergence(config.eigenvalues, lr, rho, method) for lr in rows["lr"]]
        panels.append(Panel(beside(method, rows["lr"], law, rows["rate"]), "learning rate", f"{method}{at_radius(rho)}",
                            marks=(Mark(1.0, "", "y"),), y_limits=(0.85, 1.2),
                            x_limits=(0, 2.2 / config.steepest)))  # fmt: skip
    return panels


def cycle_drawn(measured: Measured) -> list[Panel]:
    """SAM's final distance in one mode."""
    lines = []
    for rho, rows in measured["cycles"].groupby("rho"):
        law = [cycle_amplitude(measured.config.steepest, lr, float(rho)) for lr in rows["lr"]]  # type: ignore[arg-type]
        lines += beside(f"rho {rho:g}", rows["lr"], law, rows["distance"])
    return [Panel(lines, "learning rate", log_y=True)]


def gamma_drawn(measured: Measured) -> list[Panel]:
    """Gamma along trajectories, for both ascents."""
    config = measured.config
    rho, length = config.radii[-1], config.lengths[-1]

    def line(method: str, radius: float) -> Line:
        rows = select(measured["gamma"], method=method, rho=radius)
        return Line(method, rows["steps"], rows["gamma"], rows["low"], rows["high"])

    low, high = gamma_bounds(config.eigenvalues, rho)
    marks = (Mark(low, "lower bound", "y"), Mark(high, "upper bound", "y"))
    both = [line(method, rho) for method in UNNORMALISED]
    return [
        Panel(both, "steps", f"unnormalised, rho = {rho:g}", marks=marks, y_limits=(0, 1.15)),
        Panel([line("SSAM", length)], "steps", f"normalised, one mode, rho = {length:g}", log_y=True),
    ]


def gamma_words(measured: Measured) -> str:
    """How to read it."""
    near_it = gamma_normalized(1e-3, measured.config.lengths[-1])
    return (
        "Medians, bands from the least to the largest of all starts. Unnormalised: within its bounds however small ‖g‖ "
        f"is. Normalised: |w|/(|w| + rho), which is {near_it:.2g} at |w| = 0.001, and vanishes at the minimum."
    )


def noise_drawn(measured: Measured) -> list[Panel]:
    """Mean of w^2 under noise, by steps."""
    config, lines = measured.config, []
    for rho, rows in select(measured["noise"], noise="shared").groupby("rho"):
        law = [displacement(1.0, config.noise_lr, float(rho), config.noise, int(t)) for t in rows["steps"]]  # type: ignore[arg-type]
        lines += beside("SGD" if rho == 0 else f"USAM, rho {rho:g}", rows["steps"], law, rows["mean"])
    return [Panel(lines, "steps", whole=True)]


STUDY = Study(
    name="quadratic",
    title="Convergence on quadratics",
    source=Source("Tan et al. 2025, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy "
                  "(arXiv 2401.07250): convergence on quadratic losses; closed forms: fenland.theory"),
    question="Do thresholds, rates, cycles, gamma and noise floors on quadratics follow the closed forms?",
    config=Config,
    quick={"radii": (0.1, 0.5), "grid": 0.02, "steps": 600, "starts": 30, "noise_steps": 200, "paths": 6000},
    runs=measure,
    claims=claims,
    figures=[
        Plot(
            "rates", "Factor by which ‖w‖ changes a step", rates_drawn,
            "Points: measured, median over starts. Lines: theory. Below 1 (dotted) the trajectory converges.", METHODS,
            columns=2, height=150,
        ),
        Plot(
            "cycle", "Final distance of normalised SAM in one mode", cycle_drawn,
            "Points: measured, median over starts. Lines: eta·l·rho/(2 − eta·l).",
        ),
        Plot("gamma", "Gamma = ‖g‖/‖h‖", gamma_drawn, gamma_words, METHODS),
        Plot(
            "noise", "Mean of w² under gradient noise", noise_drawn, lambda m: f"Points: mean of {m.config.paths} "
            "paths from the minimum, one mini-batch in both gradients. Lines: theory.",
        ),
    ],
    choices=(
        "The paper's experiment on quadratics is known from its abstract alone; spectrum, radii and learning rates are "
        "ours.",
        "A rate is the factor by which ‖w‖ changes per step over the last half of the run, as the median over starts.",
        "The noise is normal and of the same size in every direction. Both gradients of a step have the same draw, as "
        "with one mini-batch; the other two models are judged, too.",
        "Verdicts without noise have no interval: they hold for every start or for the median, as they say.",
    ),
)  # fmt: skip
