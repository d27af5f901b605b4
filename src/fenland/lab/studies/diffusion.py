"""Mean squared displacement at a saddle: how slowly SAM's noise carries it away, and which noise model says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.studies.diffusion_fits import KEY, fits
from fenland.lab.studies.diffusion_paths import GROUPS, Walk, optimizer, replicas
from fenland.lab.studies.diffusion_verdicts import judge
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict
from fenland.theory.diffusion import displacement

MODELS = ("shared", "independent", "descent")
INPUTS = ("signs", "normal")
OTHERS = ("SSAM-U", "SAM", "SSAM")  # no closed form in two modes: measured beside


@dataclass(frozen=True)
class DiffusionConfig:
    """What is simulated.

    Attributes:
        strength: m; the modes have curvature +m and -m (loss / w^2).
        lr: eta.
        steps: taken; t = eta * steps.
        every: steps between samples.
        paths: a curve; a multiple of 20.
        rhos: radii, each with rho * m < 1.
        batches: B.
        samples: rows of the least-squares data.
        seed: of noise, data and mini-batches.
    """

    strength: float = 1.0
    lr: float = 0.02
    steps: int = 50
    every: int = 2
    paths: int = 10_000
    rhos: tuple[float, ...] = (0.1, 0.3)
    batches: tuple[int, ...] = (4, 16)
    samples: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.paths < GROUPS or self.paths % GROUPS:
            raise BadInput("paths", self.paths, f"give a multiple of {GROUPS}, so that groups of paths are equal")
        if not self.rhos or not all(0 < rho * self.strength < 1 for rho in self.rhos):
            raise BadInput("rhos", self.rhos, "give radii with 0 < rho * strength < 1: beyond, the saddle attracts")


class Diffusion(Study[DiffusionConfig]):
    """The study `diffusion`."""

    name: ClassVar[str] = "diffusion"
    title: ClassVar[str] = "Mean squared displacement at a saddle, SGD and SAM"
    source: ClassVar[str] = "Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"
    question: ClassVar[str] = (
        "Does SAM's noise carry it away from a saddle more slowly than SGD's, and by the published "
        "2*eta*t^2*|l|^3*rho/B?"
    )
    choices: ClassVar[tuple[str, ...]] = (
        "The full text was not at hand. The gap is read with t = eta * steps and a gradient noise of variance |l|/B, "
        "the usual reading of noise that is proportional to the Hessian; paths start on the critical point.",
        "Which noise SAM has is left open: one draw in both gradients (shared, what a mini-batch does), one draw in "
        "each (independent), or noise at the ascent point alone (descent). All three are simulated.",
        "The real optimizer runs on least squares with targets of variance 1, whose batches have that noise: with "
        "inputs +-sqrt(|l|), where every batch has the same curvature, and with normal inputs, where it varies.",
        "SAM is the unnormalised ascent e = rho*g, for which the algebra closes; the normalised one is measured "
        "beside it.",
    )
    presets: Mapping[str, DiffusionConfig] = {
        "quick": DiffusionConfig(),
        "paper": DiffusionConfig(
            lr=0.01, steps=100, every=4, paths=100_000, rhos=(0.05, 0.1, 0.2, 0.3, 0.5), batches=(1, 4, 16, 64)
        ),
    }

    def run(self, config: DiffusionConfig, lab: Lab) -> Tables:
        """Curves of every source, by group; their coefficients; and means beside theory."""
        cases = list(_cases(config))
        walk = Walk(config.strength, config.lr, config.steps, config.every, config.paths, config.seed)
        shared = {"walk": vars(walk), "samples": config.samples}
        pieces = [
            Piece(
                "diffusion", {**shared, "source": source, "method": method, "rho": rho, "batch": batch},
                partial(_curve, walk, config.samples, source, method, rho, batch),
            )
            for source, method, rho, batch in cases
        ]  # fmt: skip
        parts = [
            curve.assign(source=source, method=method, rho=rho, batch=batch)
            for (source, method, rho, batch), curve in zip(cases, lab.keep_all(pieces, "curves"), strict=True)
        ]
        curves = pd.concat(parts, ignore_index=True)
        linear = curves[curves["method"].isin(["SGD", "USAM"])]
        last = curves[curves["step"] == curves["step"].max()].drop(columns="step")
        return {"means": _means(curves, config), "fits": fits(linear, config.lr), "last": last}

    def figures(self, config: DiffusionConfig, tables: Tables) -> list[Any]:
        """Curves at the saddle, and the exponents."""
        from fenland.lab.studies.diffusion_figures import draw

        return draw(config, tables)

    def verdicts(self, config: DiffusionConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        return judge(config.lr, config.paths, tables)


def _cases(config: DiffusionConfig) -> list[tuple[str, str, float, int]]:
    """(source, method, rho, batch) of every curve; SGD has rho = 0."""
    cases = []
    for batch in config.batches:
        cases += [(source, "SGD", 0.0, batch) for source in ("shared", *(f"optimizer {x}" for x in INPUTS))]
        for rho in config.rhos:
            cases += [(model, "USAM", rho, batch) for model in MODELS]
            cases += [(f"optimizer {inputs}", "USAM", rho, batch) for inputs in INPUTS]
            cases += [("shared", method, rho, batch) for method in OTHERS]
    return cases


def _curve(walk: Walk, samples: int, source: str, method: str, rho: float, batch: int) -> pd.DataFrame:
    if source.startswith("optimizer"):
        return optimizer(walk, source.split()[1], rho, batch, samples)
    return replicas(walk, method if rho else "SGD", source, rho, batch)  # type: ignore[arg-type]


def _means(curves: pd.DataFrame, config: DiffusionConfig) -> pd.DataFrame:
    """Mean over groups with its interval, and the closed form where there is one: one row a curve and time."""
    from fenland.lab.store.statistics import half_width

    grouped = curves.groupby([*KEY, "step"], sort=False)["msd"]
    table = grouped.agg(["mean", "std", "count"]).reset_index()
    half = [half_width(s, int(n)) for s, n in zip(table["std"], table["count"], strict=True)]
    table = table.assign(low=table["mean"] - half, high=table["mean"] + half, t=table["step"] * config.lr)
    return table.assign(theory=[_theory(row, config) for row in table.itertuples()])


def _theory(row: Any, config: DiffusionConfig) -> float:
    """The discrete closed form; for batches of varying curvature that of constant curvature, to compare with."""
    if row.method not in ("SGD", "USAM"):
        return float(np.nan)
    std = (config.strength / row.batch) ** 0.5
    noise: Any = "shared" if row.source.startswith("optimizer") else row.source
    return displacement(row.curvature, config.lr, row.rho, std, int(row.step), noise)
