"""Escape from the saddle of a linear autoencoder (Fig. 1 of the SSAM paper): SGD, SAM and SSAM over the radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from fenland.arguments import check_among, check_whole
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel
from fenland.lab.replicas.autoencoder import loss_curves
from fenland.lab.studies.saddle_escape_claims import NORMALISED, UNNORMALISED, claims, free_products, ratio
from fenland.lab.study import Plot, Study
from fenland.lab.study.parts import Lab, Measured, Piece, Source, Tables
from fenland.lab.study.recipes import joined
from fenland.lab.study.rows import gathered, select

NORMALIZATIONS = ("sum", "half", "samples", "elements")


@dataclass(frozen=True)
class Config:
    """What is run."""

    n: int = 20  # dimension of the identity, and number of samples (its unit vectors)
    # the loss is c·‖W₂W₁ − I‖² with c = 1 ("sum"), 1/2 ("half"), 1/n ("samples"), 1/n² ("elements")
    normalization: Literal["sum", "half", "samples", "elements"] = "sum"
    lr: float = 1e-3  # learning rate
    epochs: int = 500  # of every trajectory
    steps_per_epoch: int = 20  # steps with the full gradient in one epoch
    # 1e-4 as the "variance" of the entries of the start or as their "deviation"
    spread: Literal["variance", "deviation"] = "variance"
    initial: float = 1e-4  # that 1e-4
    # rho·m of the unnormalised ascent, m = 2c the strength of the saddle
    products: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 1.2, 2.0)
    lengths: tuple[float, ...] = (0.02, 0.1, 0.18, 0.3, 0.5)  # rho of the normalised ascent (w)
    seeds: tuple[int, ...] = tuple(range(10))  # of the start
    escaped: float = 0.5  # share of the loss at the start below which a trajectory has escaped

    def __post_init__(self) -> None:
        for name in ("n", "epochs", "steps_per_epoch"):
            check_whole(name, getattr(self, name), 1)
        check_among("normalization", self.normalization, NORMALIZATIONS)
        check_among("spread", self.spread, ("variance", "deviation"))
        if any(product == 1 for product in self.products):
            raise ValueError("products: 1 is the border itself; take radii on both sides of it")

    @property
    def strength(self) -> float:
        """M = 2c: the Hessian at the origin has the eigenvalues ±m."""
        c = {"sum": 1.0, "half": 0.5, "samples": 1 / self.n, "elements": 1 / self.n**2}[self.normalization]
        return 2 * c

    @property
    def steps(self) -> int:
        """Of every trajectory."""
        return self.epochs * self.steps_per_epoch

    @property
    def deviation(self) -> float:
        """Standard deviation of the start's entries."""
        return math.sqrt(self.initial) if self.spread == "variance" else self.initial


def measure(config: Config, lab: Lab) -> Tables:
    """One piece a method, all its radii and seeds in one program."""
    names = ("n", "normalization", "lr", "steps", "deviation", "seeds", "escaped")
    given = {name: getattr(config, name) for name in names}
    plans: list[tuple[str, tuple[float, ...]]] = [("SGD", (0.0,))]
    plans += [(method, tuple(p / config.strength for p in config.products)) for method in UNNORMALISED]
    plans += [(method, config.lengths) for method in NORMALISED]
    keys = [{**given, "method": method, "radii": radii} for method, radii in plans]
    pieces = [Piece("curves", key, partial(loss_curves, **key)) for key in keys]
    whole = gathered(lab, pieces, "methods")["curves"]
    last = whole[whole["steps"] == whole["steps"].max()]
    ends = last[["method", "rho", "seed", "hit", "rate", "start", "descending", "length"]].reset_index(drop=True)
    return {"escapes": ends, "curves": whole[["method", "rho", "seed", "steps", "loss"]]}


def loss_by_epoch(methods: tuple[str, ...], name: str) -> Plot:
    """Mean loss over seeds by epoch, one panel a radius."""

    def panels(measured: Measured) -> list[Panel]:
        config, found = measured.config, []
        unnormalised = methods == UNNORMALISED
        means = measured["curves"].groupby(["method", "rho", "steps"], as_index=False)[["loss"]].mean()
        for place in config.products if unnormalised else config.lengths:
            rho, lines = place / (config.strength if unnormalised else 1.0), []
            for method in ("SGD", *methods):
                rows = select(means, method=method, **({} if method == "SGD" else {"rho": rho}))
                lines.append(Line(method, rows["steps"] / config.steps_per_epoch, rows["loss"]))
            found.append(Panel(lines, "epoch", f"{'rho·m' if unnormalised else 'rho'} = {place:g}"))
        return found

    def caption(measured: Measured) -> str:
        return f"Means over {len(measured.config.seeds)} seeds. SGD's curve is the same in every panel."

    return Plot(name, f"Loss, {name} ascent", panels, caption, METHODS, columns=2, height=135)


def times(measured: Measured) -> list[Panel]:
    """Escape times against the radius, both ascents."""
    config, below = measured.config, free_products(measured.config)
    panels = []
    for methods, places, scale, along, words in (
        (UNNORMALISED, below, 1 / config.strength, "rho·m", "unnormalised ascent; line: 1/(1 − rho·m)"),
        (NORMALISED, config.lengths, 1.0, "rho", "normalised ascent"),
    ):
        found = {method: {x: ratio(measured, method, x * scale)[0] for x in places} for method in methods}
        lines = [
            joined(method, {x: each for x, each in points.items() if each.n == len(config.seeds)})
            for method, points in found.items()
        ]
        if methods == UNNORMALISED:
            dense = np.linspace(0, max([*below, 0.5]), 60)
            lines.append(Line("USAM", dense, 1 / (1 - dense), kind="theory"))
        panels.append(Panel(lines, along, words, log_y=True, marks=(Mark(1.0, "SGD", "y"),)))
    return panels


STUDY = Study(
    name="saddle-escape",
    title="Escape from a saddle",
    source=Source("Tan et al. 2025, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy "
                  "(arXiv 2401.07250), Fig. 1"),
    question="How much longer than SGD do SAM and SSAM take to leave the saddle of a linear autoencoder?",
    config=Config,
    quick={"lr": 4e-3, "epochs": 125, "products": (0.2, 0.4, 0.6, 0.8, 1.2, 2.0), "seeds": tuple(range(5))},
    runs=measure,
    claims=claims,
    figures=[
        loss_by_epoch(UNNORMALISED, "unnormalised"),
        loss_by_epoch(NORMALISED, "normalised"),
        Plot(
            "times", "Steps to escape, as a multiple of SGD's", times, "Means over seeds with 95 % intervals, from the "
            "same starts; radii at which a seed never escapes are left out.", METHODS, height=170,
        ),
    ],
    choices=(
        "The loss is ‖W₂W₁ − I‖² summed over all elements (field normalization; half, samples and elements divide it "
        "by 2, n and n²). The origin then has the eigenvalues ±2. The paper does not give the factor.",
        "An epoch has 20 steps, one for each of the 20 unit vectors that the identity consists of, all with the full "
        "gradient (field steps_per_epoch). With one full-batch step an epoch, 500 epochs end long before the escape.",
        "N(0, 1e-4) is read as the variance 1e-4, a standard deviation of 0.01 (field spread).",
        "A trajectory has escaped when its loss is below half of that at the start (field escaped).",
        "The caption does not say which ascent its curves have, so both are run. For the unnormalised one (USAM; "
        "SSAM-U is the paper's SSAM) radii are given as the product rho·m, which decides. For the normalised one they "
        "are lengths.",
    ),
)  # fmt: skip
