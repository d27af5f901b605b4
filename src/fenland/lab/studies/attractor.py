"""The saddle as an attractor: who is held, from where, and past which radius, on three functions with saddles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from fenland.lab.errors import BadInput, one_of
from fenland.lab.studies.attractor_functions import Stage, stages
from fenland.lab.studies.attractor_runs import basins, portrait_field, portrait_paths, regions, thresholds
from fenland.lab.studies.attractor_verdicts import judge
from fenland.lab.study.base import Lab, Piece, Study, Tables, Verdict

if TYPE_CHECKING:
    from fenland.lab.figures.catalog import Drawn

UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")


@dataclass(frozen=True)
class AttractorConfig:
    """What is run.

    Attributes:
        functions: of "saddle", "beale", "himmelblau".
        m: strength of x^2 - m*y^2 + k*y^4, whose saddle has the eigenvalue -2m (loss / w^2).
        k: its confinement (loss / w^4).
        count: starts along each side of a box.
        ratios: radii of the unnormalised ascents in the boxes, as rho * |lambda| of the strongest saddle.
        radii: of the normalised ascents, as share of the box's width.
        near: values around the threshold at which starts beside the saddles are judged.
        circle: starts beside a saddle.
        seed: of those.
    """

    functions: tuple[str, ...] = ("saddle", "beale", "himmelblau")
    m: float = 1.0
    k: float = 0.25
    count: int = 20
    ratios: tuple[float, ...] = (0.9, 1.2, 2.0)
    radii: tuple[float, ...] = (0.01, 0.03, 0.1)
    near: tuple[float, ...] = (0.5, 0.9, 0.97, 1.03, 1.1, 1.5)
    circle: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.m > 0 and self.k > 0):
            raise BadInput("m, k", (self.m, self.k), "give numbers > 0: the function needs a saddle and minima")
        if not self.functions or not set(self.functions) <= set(stages(1.0, 1.0)):
            raise BadInput("functions", self.functions, one_of(stages(1.0, 1.0)))
        for name in ("ratios", "near"):
            values = getattr(self, name)
            if not (any(x < 1 for x in values) and any(x > 1 for x in values)) or 1 in values:
                raise BadInput(name, values, "give values on both sides of the threshold 1, not 1 itself")


class Attractor(Study[AttractorConfig]):
    """The study `attractor`."""

    name: ClassVar[str] = "attractor"
    title: ClassVar[str] = "The saddle as an attractor of SAM"
    source: ClassVar[str] = "Stability Analysis of Sharpness-Aware Minimization, 2023, arXiv 2301.06308"
    question: ClassVar[str] = "When does a saddle hold SAM, from how far, and does renormalising (SSAM) set it free?"
    choices: ClassVar[tuple[str, ...]] = (
        "The full text was not at hand: the paper's start, radius and learning rate on the Beale function are unknown. "
        "All starts of the box x in [-1, 4], y in [-1, 1.5] are run instead, with lr 0.001 for 4000 steps.",
        "f = x^2 - m*y^2 is confined by k*y^4, so that what escapes has a minimum to reach; |lambda| is 2m.",
        "Himmelblau's function is the third: its four saddles have four different eigenvalues, it is bounded below and "
        "grows in all directions, so that the threshold 1/|lambda| is tested at each of them on one function.",
        "Both ascents are run: e = rho*g (unnormalised) and e = rho*g/||g|| (normalised); SSAM beside each.",
        "Beside a saddle, held means nearer along its descending direction after a time of 2/|lambda|; the flow is "
        "integrated by Runge-Kutta, steps are the optimizer's own.",
    )
    presets: Mapping[str, AttractorConfig] = {
        "quick": AttractorConfig(),
        "paper": AttractorConfig(
            count=60, ratios=(0.3, 0.5, 0.7, 0.9, 0.95, 1.05, 1.1, 1.3, 1.6, 2.0, 3.0),
            radii=(0.003, 0.01, 0.03, 0.1, 0.2), near=(0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.1, 1.3, 1.5, 2.0),
            circle=200,
        ),
    }  # fmt: skip

    def run(self, config: AttractorConfig, lab: Lab) -> Tables:
        """Ends of all starts, captures beside each saddle, and what the portraits show."""
        scenes = scenes_of(config)
        jobs = [(name, method) for name in scenes for method in ("SGD", *UNNORMALISED, *NORMALISED)]
        pieces = [
            Piece(
                table, {**asdict(config), "function": name, "method": method},
                partial(_measure, config, name, method, table),
            )
            for name, method in jobs
            for table in _tables(method)
        ]  # fmt: skip
        parts: dict[str, list[pd.DataFrame]] = {
            name: [] for name in ("basins", "thresholds", "regions", "fields", "paths")
        }
        for piece, part in zip(pieces, lab.keep_all(pieces, "functions and methods"), strict=True):
            parts[piece.name].append(part.assign(function=piece.key["function"], method=piece.key["method"]))
        return {name: pd.concat(each, ignore_index=True) for name, each in parts.items()}

    def figures(self, config: AttractorConfig, tables: Tables) -> list[Drawn]:
        """Portraits, basins, and captured fractions."""
        from fenland.lab.studies.attractor_figures import draw

        return draw(scenes_of(config), tables)

    def verdicts(self, config: AttractorConfig, tables: Tables) -> list[Verdict]:
        """Judge."""
        return judge(scenes_of(config), tables)


def _tables(method: str) -> tuple[str, ...]:
    """What is measured of a method on every function."""
    if method == "SGD":
        return "basins", "fields", "paths"
    return "basins", "fields", "paths", "thresholds" if method in UNNORMALISED else "regions"


def _measure(config: AttractorConfig, name: str, method: str, table: str) -> pd.DataFrame:
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


def scenes_of(config: AttractorConfig) -> dict[str, Stage]:
    """The functions of a configuration, by name."""
    every = stages(config.m, config.k)
    return {name: every[name] for name in config.functions}


def radii(config: AttractorConfig, stage: Stage, method: str) -> list[float]:
    """The radii of a method on a function, growing; SGD has 0."""
    if method == "SGD":
        return [0.0]
    if method in UNNORMALISED:
        return [ratio / strongest(stage) for ratio in config.ratios]
    return [share * (stage.box[1] - stage.box[0]) for share in config.radii]


def strongest(stage: Stage) -> float:
    """|lambda| of the strongest saddle."""
    return max(-saddle.least for saddle in stage.saddles)
