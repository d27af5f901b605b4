"""Mean squared displacement at a saddle: how slowly SAM's noise carries it away, and which noise model says so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pandas as pd

from fenland.lab.errors import BadInput
from fenland.lab.figures.plots import Line, Mark, Panel
from fenland.lab.replicas.walks import GROUPS, Walk, optimizer, replicas
from fenland.lab.store.statistics import Interval, half_width, interval
from fenland.lab.study import Claim, Plot, Study
from fenland.lab.study.fits import KEY, exponent, fits, gap
from fenland.lab.study.parts import OURS, Finding, Lab, Measured, Piece, Source, Tables, ours
from fenland.lab.study.quantities import statement
from fenland.lab.study.recipes import beside, joined
from fenland.lab.study.words import shown, span
from fenland.theory.diffusion import displacement

PAPER = Source("Stability Analysis of SAM, arXiv 2301.06308")
MODELS = ("shared", "independent", "descent")
SIGNS, NORMAL = "optimizer signs", "optimizer normal"
OTHERS = {"SSAM-U": "SSAM", "SAM": "SAM normalised", "SSAM": "SSAM normalised"}  # no closed form in two modes
# An exponent within this of a whole number is taken for it; the models lie 1 apart.
NEAR = 0.15
SIGMAS = 4  # of some hundred points at once
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
    parts = [part.assign(**plan) for plan, part in zip(plans, lab.keep_all(pieces, "curves"), strict=True)]
    curves = pd.concat(parts, ignore_index=True)
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


def grid_of(table: pd.DataFrame) -> list[tuple[float, int]]:
    """Radii and batch sizes."""
    return list(product(sorted(x for x in table["rho"].unique() if x > 0), sorted(table["batch"].unique())))


def powers(measured: Measured, source: str, column: str = "quadratic", least: bool = False) -> list[Interval]:
    """The exponents of a source at the saddle, at every radius and batch size, or at the least radius alone."""
    table = measured["fits"]
    every = grid_of(table)
    kept = [(r, b) for r, b in every if not least or r == every[0][0]]
    return [exponent(table, source, r, b, table["curvature"].min(), column) for r, b in kept]


def ratio(measured: Measured, source: str, method: str, rho: float, batch: int) -> Interval:
    """MSD at the end over SGD's at the saddle, group by group on the same noise."""
    last = measured["last"]
    rows = last[(last["source"] == source) & (last["batch"] == batch) & (last["curvature"] == last["curvature"].min())]
    mine = rows[(rows["method"] == method) & (rows["rho"] == rho)].set_index("group")["msd"]
    return interval(mine / rows[rows["method"] == "SGD"].set_index("group")["msd"])


@statement
def slower(measured: Measured, method: str, source: str) -> Finding:
    """Whether a method's displacement is smaller than SGD's."""
    found = [ratio(measured, source, method, r, b) for r, b in grid_of(measured["last"])]
    best, worst = min(found, key=lambda x: x.mean), max(found, key=lambda x: x.high)
    return Finding(
        "ratio to SGD's below 1 at every radius and batch size",
        f"{shown(best, '.2f', False)} to {shown(worst, '.2f', False)} at the last time",
        all(x.high < 1 for x in found),
    )


def published(measured: Measured) -> Finding:
    """Whether SAM's t^2 coefficient is SGD's times (1 + rho*l)^2, as the published gap needs."""
    table, found = measured["fits"], powers(measured, SIGNS)
    rho, batch = min(grid_of(table))
    units = gap(table, SIGNS, rho, batch, table["curvature"].min(), measured.config.lr)
    return Finding(
        "2 units of eta*t^2*|l|^3*rho/B as rho -> 0, that is a t^2 coefficient of SGD's times (1 + rho*l)^2",
        f"(1 + rho*l)^k with k = {span(found)}; {shown(units, '.2f', False)} units at rho = {rho:g}, B = {batch}",
        all(x.low <= 2 <= x.high for x in found),
    )


def some_model(measured: Measured) -> Finding:
    """Which noise model has the published power at the least radius."""
    found = {model: powers(measured, model, least=True) for model in ("descent", "independent", "shared")}
    return Finding(
        "k = 2 in (1 + rho*l)^k", "; ".join(f"{model}: {span(each)}" for model, each in found.items()),
        any(all(x.low <= 2 <= x.high for x in each) for each in found.values()),
        f"At rho = {grid_of(measured['fits'])[0][0]:g}. Two readings would give 2 and no simulated step has either: a "
        "diffusion that carries (1 + rho*l) once (noise in proportion to the curvature of SAM's own step), or noise of "
        "twice the variance (D = eta*|l|/B for eta*|l|/(2B)) that does not pass through the ascent.",
    )  # fmt: skip


def identified(measured: Measured) -> Finding:
    """The powers of noise, drift and both in the real optimizer."""
    noise, drift, total = (powers(measured, SIGNS, column) for column in ("linear", "drift", "quadratic"))
    holds = all(abs(x.mean - power) < NEAR for xs, power in ((noise, 2), (drift, 1), (total, 3)) for x in xs)
    words = f"noise {span(noise)}, drift {span(drift)}, together {span(total)}"
    return Finding("powers 2 and 1, together 3 in t^2", words, holds)


def closed_form(measured: Measured) -> Finding:
    """Every mean of the noise models against the closed form."""
    rows, paths = measured["means"], measured.config.paths
    rows = rows[rows["source"].isin(MODELS) & rows["theory"].notna() & (rows["step"] > 0)]
    relative = (rows["mean"] / rows["theory"] - 1).abs()
    far = relative / (2 / paths) ** 0.5  # w_t is normal: the mean of n squares has the relative error sqrt(2 / n)
    return Finding(
        f"every mean within {SIGMAS} standard errors",
        f"at most {far.max():.2f} standard errors away, {100 * relative.max():.1f} %", bool((far < SIGMAS).all()),
        f"{len(rows)} points of {paths} paths each; points of one curve are not independent.",
    )  # fmt: skip


def varied(measured: Measured) -> Finding:
    """Normal inputs, whose batches have another curvature each."""
    table = measured["fits"]
    every = grid_of(table)
    found = {
        b: exponent(table, NORMAL, r, b, table["curvature"].min(), "quadratic")
        for r, b in every if b >= 4 and r == every[0][0]
    }  # fmt: skip
    laws = {b: 3 * (1 + 2 / b) for b in found}
    return Finding(
        "power 3*(1 + 2/B) for normal inputs, to first order in rho: "
        + ", ".join(f"{law:.2f} at B = {b}" for b, law in laws.items()),
        ", ".join(f"{shown(x, '.2f', False)} at B = {b}" for b, x in found.items()) or "no batch of 4 or more",
        all(abs(x.mean - laws[b]) < 2 * NEAR and x.low > 3 for b, x in found.items()) if found else None,
        open="Not decided: no batch of 4 or more.",
    )


def between(measured: Measured) -> Finding:
    """SSAM's displacement against SAM's and SGD's, for both ascents."""
    pairs, places = (("SSAM-U", "USAM"), ("SSAM", "SAM")), grid_of(measured["last"])
    found = {m: [ratio(measured, "shared", m, r, b) for r, b in places] for pair in pairs for m in pair}
    return Finding(
        "ratio to SGD's between SAM's and 1 at every radius and batch size",
        "; ".join(f"{mine}: {span(found[mine])}" for mine, _ in pairs),
        all(x.low > sam.high and x.high < 1 for mine, theirs in pairs
            for x, sam in zip(found[mine], found[theirs], strict=True)),
    )  # fmt: skip


def claims(measured: Measured) -> Iterator[Claim]:
    """What the paper says, which noise it means, and what theory says."""
    groups = "Intervals over 20 groups of paths, each beside SGD on the same noise."
    for method, source, which in (
        ("USAM", SIGNS, "unnormalised ascent, the real optimizer on mini-batches"),
        ("SAM", "shared", "normalised ascent, replicas with shared noise"),
    ):
        sentence = f"SAM's mean squared displacement at a saddle is smaller than SGD's ({which})."
        yield Claim(sentence, PAPER, slower(method, source), notes=(groups,))
    yield Claim(
        "At a saddle SAM's mean squared displacement is smaller by 2*eta*t^2*|l|^3*rho/B.",
        Source(f"{PAPER}, Corollary 1"), published, "exponents", notes=(
            "Real optimizer, one mini-batch in both passes. k units are left as rho -> 0: 3, beside a gap that grows "
            "with t itself. At finite rho the units are (1 - (1 + rho*l)^k) / (rho*|l|), so that near rho*|l| = 0.37 "
            "they pass through 2 for k = 3: a single radius can look like the published value.",
        ),
    )  # fmt: skip
    yield Claim(
        "One of the three noise models (shared, independent, descent) gives the published factor 2.",
        Source("ours, to identify the published one", ours=True), some_model, "exponents", notes=(
            "It belongs to a fourth model, no step of SAM's: the full gradient of L(w + rho*grad L(w)), whose drift "
            "carries (1 + rho*l)^2, under noise that the ascent leaves alone (Theorem 2; study own-settings).",
        ),
    )  # fmt: skip
    yield Claim(
        "A mini-batch that both passes see is the shared noise model: noise variance times (1 + rho*l)^2, drift times "
        "(1 + rho*l).", OURS, identified, "exponents", notes=(
            "Real optimizer, least squares with inputs of one length; a power counts within "
            f"{NEAR} of a whole number.",
        ),
    )  # fmt: skip
    yield Claim(
        "The closed form E[w_t^2] holds for all three noise models, at the saddle and at the minimum.",
        ours("fenland.theory.diffusion.displacement"), closed_form,
    )  # fmt: skip
    yield Claim(
        "Batches whose curvature varies hold SAM back further than the noise of the gradient alone.", OURS, varied,
        "exponents", notes=(
            "E[l_B*c_B^2] = (1 + 2/B)*l*E[c_B^2] for a batch curvature l_B and noise c_B from the same normal inputs, "
            f"and likewise in the drift. Within {2 * NEAR}.",
        ),
    )  # fmt: skip
    yield Claim(
        "SSAM diffuses from a saddle faster than SAM and slower than SGD, with either ascent.", OURS, between,
        notes=("Replicas with shared noise, a saddle of two modes +-m that share ||g||.",),
    )  # fmt: skip


def displacements(measured: Measured) -> list[Panel]:
    """Curves at the saddle: radii, noise models, other methods."""
    config, rows = measured.config, measured["means"]
    rho = max(config.rhos)
    rows = rows[(rows["curvature"] < 0) & (rows["batch"] == config.batches[0]) & (rows["step"] > 0)]

    def lines(label: str, source: str, method: str, radius: float) -> list[Line]:
        part = rows[(rows["source"] == source) & (rows["method"] == method) & (rows["rho"] == radius)]
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
        "Corollary 1 as a summary of the paper prints it, with t = eta * steps and a gradient noise of variance |l|/B, "
        "its Fisher noise in one mode; paths start on the critical point.",
        "Which noise SAM has is left open: one draw in both gradients (shared, what a mini-batch does), one draw in "
        "each (independent), or noise at the ascent point alone (descent). All three are simulated.",
        "The real optimizer runs on least squares with targets of variance 1, whose batches have that noise: with "
        "inputs +-sqrt(|l|), where every batch has the same curvature, and with normal inputs, where it varies.",
        "SAM is the unnormalised ascent e = rho*g, for which the algebra closes; the normalised one is measured "
        "beside it.",
    ),
)  # fmt: skip
