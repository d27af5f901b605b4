"""Mean squared displacement at a saddle: how slowly SAM's noise carries it away, and which noise model says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import Line, Mark, Panel
from fenland.lab.replicas.walks import GROUPS, Walk, optimizer, replicas
from fenland.lab.store.statistics import half_width
from fenland.lab.studies.diffusion_claims import MODELS, NORMAL, SIGNS, claims
from fenland.lab.study import Plot, Study
from fenland.lab.study.fits import KEY, exponent, fits
from fenland.lab.study.parts import Lab, Measured, Piece, Source, Tables
from fenland.lab.study.recipes import beside, joined
from fenland.lab.study.rows import gathered, select
from fenland.theory.diffusion import displacement

OTHERS = {"SSAM-U": "SSAM", "SAM": "SAM normalised", "SSAM": "SSAM normalised"}  # no closed form in two modes
TIME = "time t = η · steps"


@dataclass(frozen=True)
class Config:
    """What is simulated."""

    strength: float = 1.0  # m; the modes have curvature +m and -m (loss / w^2)
    lr: float = 0.02  # eta
    steps: int = 50  # taken; t = eta * steps
    every: int = 2  # steps between samples
    paths: int = 10_000  # a curve; a multiple of 20
    rhos: tuple[float, ...] = (0.1, 0.3)  # radii, each with rho * m < 1
    batches: tuple[int, ...] = (4, 16)  # B
    samples: int = 1024  # rows of the least-squares data
    seed: int = 0  # of noise, data and mini-batches

    def __post_init__(self) -> None:
        if self.paths < GROUPS or self.paths % GROUPS:
            raise BadInput("paths", self.paths, f"give a multiple of {GROUPS}, so that groups of paths are equal")
        if not self.rhos or not all(0 < rho * self.strength < 1 for rho in self.rhos):
            raise BadInput("rhos", self.rhos, "give radii with 0 < rho * strength < 1: beyond, the saddle attracts")


def cases(config: Config) -> list[tuple[str, str, float, int]]:
    """(source, method, rho, batch) of every curve; SGD has rho = 0."""
    found = []
    for batch in config.batches:
        found += [(source, "SGD", 0.0, batch) for source in ("shared", SIGNS, NORMAL)]
        for rho in config.rhos:
            found += [(source, "USAM", rho, batch) for source in (*MODELS, SIGNS, NORMAL)]
            found += [("shared", method, rho, batch) for method in OTHERS]
    return found


def measure(config: Config, lab: Lab) -> Tables:
    """Curves of every source, by group; their coefficients; and means beside theory."""
    walk = Walk(config.strength, config.lr, config.steps, config.every, config.paths, config.seed)
    plans: list[dict[str, Any]] = [
        dict(zip(("source", "method", "rho", "batch"), each, strict=True)) for each in cases(config)
    ]
    shared = {"walk": vars(walk), "samples": config.samples}
    pieces = [Piece("diffusion", {**shared, **plan}, partial(curve, walk, config.samples, **plan)) for plan in plans]
    curves = gathered(lab, pieces, "curves", "source", "method", "rho", "batch")["diffusion"]
    linear = curves[curves["method"].isin(["SGD", "USAM"])]
    last = curves[curves["step"] == curves["step"].max()].drop(columns="step")
    return {"means": means(curves, config), "fits": fits(linear, config.lr), "last": last}


def curve(walk: Walk, samples: int, source: Any, method: str, rho: float, batch: int) -> pd.DataFrame:
    """One curve: the real optimizer on mini-batches, or replicas under a noise model."""
    if source in (SIGNS, NORMAL):
        return optimizer(walk, source.split()[1], rho, batch, samples)
    return replicas(walk, method, source, rho, batch)


def means(curves: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Mean over groups with its interval, and the closed form where there is one: one row a curve and time."""
    table = curves.groupby([*KEY, "step"], sort=False)["msd"].agg(["mean", "std", "count"]).reset_index()
    half = [half_width(s, int(n)) for s, n in zip(table["std"], table["count"], strict=True)]
    table = table.assign(low=table["mean"] - half, high=table["mean"] + half, t=table["step"] * config.lr)
    return table.assign(theory=[_law(row, config) for row in table.itertuples()])


def _law(row: Any, config: Config) -> float:
    """The discrete closed form; for batches of varying curvature that of constant curvature, to compare with."""
    if row.method not in ("SGD", "USAM"):
        return math.nan
    noise: Any = "shared" if row.source in (SIGNS, NORMAL) else row.source
    return displacement(row.curvature, config.lr, row.rho, (config.strength / row.batch) ** 0.5, int(row.step), noise)


def displacements(measured: Measured) -> list[Panel]:
    """Curves at the saddle: radii, noise models, other methods."""
    config, rows = measured.config, measured["means"]
    rho = max(config.rhos)
    rows = rows[(rows["curvature"] < 0) & (rows["batch"] == config.batches[0]) & (rows["step"] > 0)]

    def lines(label: str, source: str, method: str, radius: float) -> list[Line]:
        part = select(rows, source=source, method=method, rho=radius)
        if part["theory"].isna().all():
            return [Line(label, part["t"], part["mean"], part["low"], part["high"])]
        return beside(label, part["t"], part["theory"], part["mean"])

    sgd = lines("SGD", SIGNS, "SGD", 0.0)
    radii = [line for r in config.rhos for line in lines(f"SAM, ρ = {r:g}", SIGNS, "USAM", r)]
    models = [line for m in MODELS for line in lines(f"SAM, {m}", m, "USAM", rho)]
    others = [line for method, label in OTHERS.items() for line in lines(label, "shared", method, rho)]
    return [
        Panel([*sgd, *radii], TIME, "The optimizer on mini-batches"),
        Panel([*sgd, *models], TIME, f"Noise models, ρ = {rho:g}"),
        Panel([*sgd, *others], TIME, f"Other methods, ρ = {rho:g}"),
    ]


def exponents(measured: Measured) -> list[Panel]:
    """The powers of (1 + rho*l) by radius."""
    config, table = measured.config, measured["fits"]
    low, high = min(config.batches), max(config.batches)
    wanted = {
        "optimizer": (SIGNS, high), **{model: (model, high) for model in MODELS},
        f"varied, B = {high}": (NORMAL, high), f"varied, B = {low}": (NORMAL, low),
    }  # fmt: skip
    lines = [
        joined(label, {r: exponent(table, source, r, batch, -config.strength, "quadratic") for r in config.rhos})
        for label, (source, batch) in wanted.items()
    ]
    marks = [Mark(2.0, "published", "y"), Mark(3.0, "one batch for both", "y"), Mark(1.0, "noise not ascended", "y")]
    room = 0.08 * (max(config.rhos) - min(config.rhos) or max(config.rhos))
    limits = (min(config.rhos) - room, max(config.rhos) + room)
    return [Panel(lines, "radius ρ (w per gradient)", marks=marks, x_limits=limits)]


def drawn(measured: Measured) -> Any:
    """The displacement at the smallest batch size."""
    return Plot(
        "displacement", f"Mean squared displacement at a saddle, B = {measured.config.batches[0]}", displacements,
        "Dots are means over paths that start on the saddle, thin lines the closed form; bands are 95 % intervals over "
        "groups of paths. Top: one mini-batch in both passes. Middle: normal noise, drawn once for both passes "
        "(shared), once for each, or in the descent alone. Bottom: what has no closed form, shared noise.", height=165,
    )(measured)  # fmt: skip


STUDY = Study(
    name="diffusion",
    title="Mean squared displacement at a saddle, SGD and SAM",
    source=Source("Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"),
    question="Does SAM's noise carry it away from a saddle more slowly than SGD's, and by the published "
    "2*eta*t^2*|l|^3*rho/B?",
    config=Config,
    paper={
        "lr": 0.01, "steps": 100, "every": 4, "paths": 100_000, "rhos": (0.05, 0.1, 0.2, 0.3, 0.5),
        "batches": (1, 4, 16, 64),
    },
    runs=measure,
    claims=claims,
    figures=[
        drawn,
        Plot(
            "exponents", "k of the t² coefficient, SAM's = SGD's · (1 + ρλ)ᵏ", exponents,
            lambda m: "The published gap needs k = 2. Bands are 95 % intervals over groups of paths; SAM and SGD see "
            f"the same noise. λ = −{m.config.strength:g}.",
        ),
    ],
    choices=(
        "Corollary 1 is taken from a summary of the paper, with t = eta * steps and a gradient noise of variance "
        "|l|/B, which is its Fisher noise in one mode. Paths start on the critical point.",
        "The paper leaves open which noise SAM has: one draw in both gradients (shared, what a mini-batch does), one "
        "draw in each (independent), or noise at the ascent point alone (descent). All three are simulated.",
        "The real optimizer runs on least squares with targets of variance 1, whose batches have that noise: with "
        "inputs +-sqrt(|l|), where every batch has the same curvature, and with normal inputs, where it varies.",
        "SAM has the unnormalised ascent e = rho*g, for which there is a closed form; the normalised one is measured "
        "beside it.",
    ),
)  # fmt: skip
