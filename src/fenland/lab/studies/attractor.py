"""The saddle as an attractor: who is held, from where, and past which radius, on three functions with saddles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

from fenland.lab.errors import BadInput, one_of
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Mark, Panel
from fenland.lab.replicas.capture import (
    CLOSE,
    Stage,
    basins,
    portrait_field,
    portrait_paths,
    regions,
    stages,
    thresholds,
)
from fenland.lab.store.statistics import Interval
from fenland.lab.studies.attractor_claims import (
    CLEAR,
    NORMALISED,
    UNNORMALISED,
    at_saddle,
    claims,
    held,
    scenes_of,
    strongest,
)
from fenland.lab.study import Plot, Study
from fenland.lab.study.parts import Lab, Measured, Piece, Source, Tables
from fenland.lab.study.portraits import NAMES, portrait
from fenland.lab.study.portraits import basins as drawn_basins
from fenland.lab.study.recipes import joined
from fenland.lab.study.rows import gathered, select


@dataclass(frozen=True)
class Config:
    """What is run."""

    functions: tuple[str, ...] = ("saddle", "beale", "himmelblau")  # of "saddle", "beale", "himmelblau"
    m: float = 1.0  # strength of x^2 - m*y^2 + k*y^4, whose saddle has the eigenvalue -2m (loss / w^2)
    k: float = 0.25  # its confinement (loss / w^4)
    count: int = 20  # starts along each side of a box
    # radii of the unnormalised ascents in the boxes, as rho * |lambda| of the strongest saddle
    ratios: tuple[float, ...] = (0.9, 1.2, 2.0)
    radii: tuple[float, ...] = (0.01, 0.03, 0.1)  # of the normalised ascents, as share of the box's width
    # values around the threshold at which starts beside the saddles are judged
    near: tuple[float, ...] = (0.5, 0.9, 0.97, 1.03, 1.1, 1.5)
    circle: int = 20  # starts beside a saddle
    seed: int = 0  # of those

    def __post_init__(self) -> None:
        if not (self.m > 0 and self.k > 0):
            raise BadInput("m, k", (self.m, self.k), "give numbers > 0: the function needs a saddle and minima")
        if not self.functions or not set(self.functions) <= set(stages(1.0, 1.0)):
            raise BadInput("functions", self.functions, one_of(stages(1.0, 1.0)))
        for name in ("ratios", "near"):
            values = getattr(self, name)
            if not (any(x < 1 for x in values) and any(x > 1 for x in values)) or 1 in values:
                raise BadInput(name, values, "give values on both sides of the threshold 1, not 1 itself")
        if min(self.ratios) > CLEAR:
            raise BadInput("ratios", self.ratios, f"give one up to {CLEAR:g}: nearer to 1 runs are too short")


def radii(config: Config, stage: Stage, method: str) -> list[float]:
    """The radii of a method on a function, growing; SGD has 0."""
    if method == "SGD":
        return [0.0]
    if method in UNNORMALISED:
        return [ratio / strongest(stage) for ratio in config.ratios]
    return [share * (stage.box[1] - stage.box[0]) for share in config.radii]


def measure(config: Config, lab: Lab) -> Tables:
    """Ends of all starts, captures beside each saddle, and what the portraits show."""
    beside = {"SGD": (), **dict.fromkeys(UNNORMALISED, ("thresholds",)), **dict.fromkeys(NORMALISED, ("regions",))}
    pieces = [
        Piece(
            table, {**asdict(config), "function": name, "method": method},
            partial(one_table, config, name, method, table),
        )
        for name in config.functions
        for method in ("SGD", *UNNORMALISED, *NORMALISED)
        for table in ("basins", "fields", "paths", *beside[method])
    ]  # fmt: skip
    return gathered(lab, pieces, "functions and methods", "function", "method")


def one_table(config: Config, name: str, method: str, table: str) -> pd.DataFrame:
    """One table of one function and method; portraits are those of the largest radius."""
    stage = scenes_of(config)[name]
    rhos = radii(config, stage, method)
    if table == "basins":
        return basins(stage, method, rhos, config.count)
    if table in ("fields", "paths"):
        return (portrait_field if table == "fields" else portrait_paths)(stage, method, rhos[-1])
    beside = thresholds if table == "thresholds" else regions
    each = [
        beside(stage, method, config.near, config.circle, how, config.seed).assign(how=how) for how in ("flow", "steps")
    ]
    return pd.concat(each, ignore_index=True)


def by(rows: pd.DataFrame, column: str, of: Callable[[pd.DataFrame], Interval]) -> dict[Any, Interval]:
    """A share by the values of a column."""
    return {value: of(part) for value, part in rows.groupby(column)}


def threshold_drawn(measured: Measured) -> list[Panel]:
    """Who is held by rho*|lambda|."""
    rows = measured["thresholds"]
    lines = [
        joined(f"{NAMES[m]}, {how}", by(select(rows, method=m, how=how), "ratio", held))
        for m in UNNORMALISED
        for how in ("flow", "steps")
    ]
    return [Panel(lines, "ρ · |λ|", marks=[Mark(1.0, "theory")], y_limits=(-0.05, 1.05))]


def region_drawn(measured: Measured) -> list[Panel]:
    """Who is held by the length of the gradient."""
    rows = select(measured["regions"], how="flow")
    words = {"descending": "on the descending direction", "around": "all directions"}
    lines = [
        joined(f"{m}, {text}", by(select(rows, method=m, where=where), "ratio", held))
        for where, text in words.items()
        for m in NORMALISED
    ]
    return [Panel(lines, "‖g‖ at the start / (ρ · |λ|)", marks=[Mark(1.0, "theory")], y_limits=(-0.05, 1.05))]


def captured_drawn(measured: Measured) -> list[Panel]:
    """The share of each box that ends at a saddle."""
    panels, ends = [], measured["basins"]
    for name, stage in scenes_of(measured.config).items():
        rows = select(ends, function=name)
        lines = [joined(NAMES[m], by(select(rows, method=m), "rho", at_saddle)) for m in NAMES if m != "SGD"]
        panels.append(Panel(lines, "radius ρ", stage.name, log_x=True, marks=[Mark(1 / strongest(stage), "1/|λ|")]))
    return panels


def scenes_drawn(measured: Measured) -> list[Drawn]:
    """Portrait and basins of each function."""
    found = []
    for name, stage in scenes_of(measured.config).items():
        fields, paths, ends = (select(measured[t], function=name) for t in ("fields", "paths", "basins"))
        found += [portrait(name, stage, fields, paths), drawn_basins(name, stage, ends)]
    return found


STUDY = Study(
    name="attractor",
    title="The saddle as an attractor of SAM",
    source=Source("Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"),
    question="When does a saddle hold SAM, from how far, and does renormalising (SSAM) set it free?",
    config=Config,
    paper={
        "count": 60, "ratios": (0.3, 0.5, 0.7, 0.9, 0.95, 1.05, 1.1, 1.3, 1.6, 2.0, 3.0),
        "radii": (0.003, 0.01, 0.03, 0.1, 0.2), "circle": 200,
        "near": (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.1, 1.3, 1.5, 2.0),
    },
    runs=measure,
    claims=claims,
    figures=[
        Plot(
            "threshold", "Share held beside a saddle, unnormalised ascent", threshold_drawn,
            f"All saddles of the functions together, starts at a distance of {CLOSE:g}. Bands: 95 % (Wilson).",
        ),
        Plot(
            "region", "Share held beside a saddle, normalised ascent", region_drawn,
            "The flow, all saddles of the functions together. On the descending direction ‖g‖ = ρ·|λ| is the border; "
            "elsewhere the positive curvature fades first, and starts from beyond are drawn in too.",
        ),
        Plot(
            "captured", "Share of a box of starts that ends at a saddle", captured_drawn,
            "The line is the threshold of the function's strongest saddle for the unnormalised ascent (ρ in w per "
            "gradient); the normalised one (ρ in w) has none. Bands: 95 % (Wilson).",
        ),
        scenes_drawn,
    ],
    choices=(
        "The study own-settings runs the paper's own start on the Beale function, with its radii and learning rate. "
        "This study takes starts all over the box x in [-1, 4], y in [-1, 1.5], with lr 0.001 for 4000 steps.",
        "The saddle f = x^2 - m*y^2 has k*y^4 added, so that a path that escapes has a minimum to reach; |lambda| is "
        "2m.",
        "The third function is Himmelblau's. It is bounded below, grows in all directions, and its four saddles have "
        "four different eigenvalues, so one function tests the threshold 1/|lambda| at each of them.",
        "Both ascents are run, e = rho*g (unnormalised) and e = rho*g/||g|| (normalised), each with SSAM beside it.",
        "A start beside a saddle counts as held if it is nearer along the descending direction after a time of "
        "2/|lambda|. The flow is integrated by Runge-Kutta; discrete steps are those of the optimizer.",
    ),
)  # fmt: skip
