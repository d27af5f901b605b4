"""SGD, SAM and SSAM on quadratics: thresholds, rates, cycles, gamma and noise floors against closed forms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from scipy.special import ndtri

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel
from fenland.lab.replicas.convergence import cycles, floors, gammas, rates
from fenland.lab.study import Claim, Finding, Lab, Measured, Piece, Plot, Source, Study, Tables
from fenland.lab.study.grid import above_zero
from fenland.lab.study.quantities import statement
from fenland.lab.study.recipes import beside
from fenland.lab.study.theory import at_radius, near
from fenland.theory import (
    convergence,
    cycle_amplitude,
    displacement,
    gamma_bounds,
    gamma_normalized,
    stable_lr,
    stationary_displacement,
)  # fmt: skip

UNNORMALISED = ("USAM", "SSAM-U")
THEORY = Source("theory (fenland.theory)", ours=True)
FROM_THEORY = Source("ours, from theory", ours=True)
PAPER = Source("Tan et al. 2025 (SSAM), convergence on quadratics; theory (fenland.theory)")
LAWS = {
    "SGD": "SGD converges below 2/l",
    "USAM": "Unnormalised SAM converges below 2/(l(1 + rho·l))",
    "SSAM-U": "SSAM on the unnormalised ascent converges below SGD's 2/l",
    "SSAM": "SSAM on the normalised ascent converges below SGD's 2/l",
}
NOISES = {
    "shared": "one mini-batch in both gradients",
    "independent": "a mini-batch for each gradient",
    "descent": "noise in the second gradient alone",
}


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
    parts: dict[str, list[pd.DataFrame]] = {}
    for piece, part in zip(pieces, lab.keep_all(pieces, "parts"), strict=True):
        parts.setdefault(piece.name, []).append(part)
    return {name: pd.concat(each, ignore_index=True) for name, each in parts.items()}


def rows_of(measured: Measured, method: str, rho: float) -> pd.DataFrame:
    """The rates of a method and radius, by learning rate."""
    table = measured["rates"]
    return table[(table["method"] == method) & (table["rho"] == rho)].sort_values("lr")


def critical_lr(rows: pd.DataFrame) -> float:
    """The middle between the last learning rate at which every start shrinks and the next; NaN if they all do."""
    shrinks, lrs = (rows["high"] < 1).tolist(), rows["lr"].tolist()
    first = next((k for k, good in enumerate(shrinks) if not good), None)
    return math.nan if not first else (lrs[first - 1] + lrs[first]) / 2


def claims(measured: Measured) -> Iterator[Claim]:
    """Each closed form beside its measurement."""
    config = measured.config
    for method, law in LAWS.items():
        limits = {rho: config.limit(method, rho) for rho in config.radii_of(method)}
        found = {rho: critical_lr(rows_of(measured, method, rho)) for rho in limits}
        yield Claim(
            f"{law} (l = {config.steepest:g}, the largest eigenvalue)", PAPER if method == "SSAM-U" else THEORY,
            near(limits, found, config.step, f", each within {config.step:.3g}", ".4f", "; "), "rates",
            notes=(
                f"Learning rate up to which all {config.starts} starts shrink, half way between two of the grid.",
            ),
        )  # fmt: skip
    for method in LAWS:
        derived = ", derived for the balance of two modes" if "SSAM" in method else ""
        yield Claim(
            f"{method}'s factor a step is that of theory at every stable learning rate",
            Source(f"fenland.theory.convergence{derived}", ours=True), rate(method), "rates",
            notes=("Median over starts, over the last half of the run.",),
        )  # fmt: skip
    yield Claim(
        "Normalised SAM ends at the distance eta·l·rho/(2 − eta·l) from the minimum of one mode", THEORY, cycle,
        "cycle", notes=(f"l = {config.steepest:g}, eta·l up to 1.9",),
    )  # fmt: skip
    yield Claim(
        "On the unnormalised ascent gamma stays in [1/(1 + rho·l_max), 1/(1 + rho·l_min)]", THEORY, bounded, "gamma",
        notes=("All points of all trajectories of USAM and SSAM-U.",),
    )  # fmt: skip
    for where, words in NOISES.items():
        yield Claim(
            f"With {words} the noise floor of SAM is eta²σ²c²/(1 − q²)",
            Source("fenland.theory.displacement", ours=True), floor(where), "noise", notes=(
                f"Mean of w² of {config.paths} paths after {config.noise_steps} steps, l = 1, rho = 0 is SGD.",
            ),
        )  # fmt: skip
    sentence = "At a minimum SAM's noise floor lies above SGD's, one mini-batch in both gradients"
    yield Claim(sentence, FROM_THEORY, noisier, "noise")


@statement
def rate(measured: Measured, method: str) -> Finding:
    """The factor a step against `theory.convergence`, at every stable learning rate."""
    config, gaps = measured.config, {}
    for rho in config.radii_of(method):
        rows = rows_of(measured, method, rho)
        # One step of the grid from the limit: closer, shrinking modes have not died away within the run.
        rows = rows[rows["lr"] < config.limit(method, rho) - config.step]
        law = [convergence(config.eigenvalues, lr, rho, method) for lr in rows["lr"]]
        gaps[rho] = float((rows["rate"] - law).abs().max())
    words = ", ".join(f"{gap:.2g}{at_radius(rho)}" for rho, gap in gaps.items())
    return Finding("largest difference at most 0.01", words, max(0.0, *gaps.values()) <= 0.01)


def cycle(measured: Measured) -> Finding:
    """Every start's final distance over the predicted one."""
    rows = measured["cycles"]
    law = [cycle_amplitude(measured.config.steepest, lr, rho) for rho, lr in rows[["rho", "lr"]].to_numpy()]
    ratio = pd.concat([rows["low"] / law, rows["high"] / law])
    return Finding(
        "measured over predicted within 0.99 to 1.01, for every start",
        f"from {ratio.min():.4f} to {ratio.max():.4f} over {len(rows)} pairs of learning rate and radius",
        bool((abs(ratio - 1) <= 0.01).all()),
    )


def bounded(measured: Measured) -> Finding:
    """Gamma at all points against its bounds."""
    config, table, seen = measured.config, measured["gamma"], {}
    table = table[table["method"].isin(UNNORMALISED)]
    laws = {rho: gamma_bounds(config.eigenvalues, rho) for rho in config.radii}
    for rho in laws:
        rows = table[table["rho"] == rho]
        seen[rho] = float(rows["low"].min()), float(rows["high"].max())
    expected, found = (
        "; ".join(f"{low:.3f} to {high:.3f} at rho {rho:g}" for rho, (low, high) in each.items())
        for each in (laws, seen)
    )
    holds = all(laws[r][0] - 1e-9 <= seen[r][0] and seen[r][1] <= laws[r][1] + 1e-9 for r in laws)
    return Finding(expected, found, holds)


@statement
def floor(measured: Measured, where: Any) -> Finding:
    """E[w^2] at the last step against the closed form, all radii together."""
    config, rows = measured.config, at_end(measured, where)
    words, good, z = [], [], float(ndtri(1 - 0.05 / 2 / len(rows)))
    for rho, steps, mean, error in rows[["rho", "steps", "mean", "error"]].to_numpy():
        law = displacement(1.0, config.noise_lr, float(rho), config.noise, int(steps), where)
        good.append(bool(abs(mean - law) <= z * error))
        words.append(f"{mean:.4f} ± {1.96 * error:.4f} for {law:.4f} at rho {rho:g}")
    return Finding("within the 95 % interval over paths, all radii together", ", ".join(words), all(good))


def at_end(measured: Measured, where: str) -> pd.DataFrame:
    """The noise floors at the last step."""
    rows = measured["noise"]
    found: pd.DataFrame = rows[(rows["noise"] == where) & (rows["steps"] == rows["steps"].max())]
    return found


def noisier(measured: Measured) -> Finding:
    """With one mini-batch in both gradients SAM is noisier than SGD at a minimum."""
    config, rows = measured.config, at_end(measured, "shared").set_index("rho")
    mean, relative, words, good = rows["mean"], rows["error"] / rows["mean"], [], []
    for rho in config.radii:
        ratio = float(mean[rho] / mean[0.0])
        error = 1.96 * ratio * math.hypot(float(relative[rho]), float(relative[0.0]))
        good.append(ratio - error > 1)
        words.append(f"{ratio:.3f} ({ratio - error:.3f} to {ratio + error:.3f}) at rho {rho:g}")
    laws = [stationary_displacement(1.0, config.noise_lr, rho, config.noise) for rho in (0.0, *config.radii)]
    expected = ", ".join(f"{law / laws[0]:.3f} at rho {rho:g}" for rho, law in zip(config.radii, laws[1:], strict=True))
    return Finding(f"{expected} times SGD's, above 1", ", ".join(words), all(good))


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
    config, table = measured.config, measured["gamma"]
    rho, length = config.radii[-1], config.lengths[-1]

    def line(method: str, radius: float) -> Line:
        rows = table[(table["method"] == method) & (table["rho"] == radius)]
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
    table = measured["noise"][measured["noise"]["noise"] == "shared"]
    for rho, rows in table.groupby("rho"):
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
        "A rate is the factor by which ‖w‖ changes a step over the last half of the run, the median over starts.",
        "Noise is normal, of the same size in every direction, one draw a step in both gradients as one mini-batch "
        "gives; the other two models stand beside it in the verdict.",
        "Deterministic verdicts have no interval: they hold for every start or for the median, as they say.",
    ),
)  # fmt: skip
