"""The saddle as an attractor: who is held, from where, and past which radius, on three functions with saddles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

from fenland.lab.errors import BadInput, one_of
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Mark, Panel
from fenland.lab.replicas.capture import (
    ENDS,
    Stage,
    basins,
    portrait_field,
    portrait_paths,
    regions,
    stages,
    thresholds,
)  # fmt: skip
from fenland.lab.store.statistics import Interval
from fenland.lab.study import Claim, Plot, Study
from fenland.lab.study.parts import OURS, Finding, Lab, Measured, Piece, Source, Tables
from fenland.lab.study.portraits import NAMES, portrait
from fenland.lab.study.portraits import basins as drawn_basins
from fenland.lab.study.quantities import statement
from fenland.lab.study.recipes import joined
from fenland.lab.study.words import percent, share

PAPER = Source("Stability Analysis of SAM, arXiv 2301.06308")
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
MINIMUM, SADDLE = ENDS.index("minimum"), ENDS.index("saddle")
WORDS = {"USAM": "SAM (unnormalised)", "SSAM-U": "SSAM (unnormalised)", "SAM": "SAM (normalised)"}
STEPS_SHARE = 0.99  # of starts that discrete steps must judge like the flow


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


def scenes_of(config: Config) -> dict[str, Stage]:
    """The functions of a configuration, by name."""
    every = stages(config.m, config.k)
    return {name: every[name] for name in config.functions}


def strongest(stage: Stage) -> float:
    """|lambda| of the strongest saddle."""
    return max(-saddle.least for saddle in stage.saddles)


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
    parts: dict[str, list[pd.DataFrame]] = {}
    for piece, part in zip(pieces, lab.keep_all(pieces, "functions and methods"), strict=True):
        about = {"function": piece.key["function"], "method": piece.key["method"]}
        parts.setdefault(piece.name, []).append(part.assign(**about))
    return {name: pd.concat(each, ignore_index=True) for name, each in parts.items()}


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


def held(rows: pd.DataFrame) -> Interval:
    """The share of starts beside saddles that are held."""
    return share(int(rows["captured"].sum()), int(rows["starts"].sum()))


def at_saddle(rows: pd.DataFrame) -> Interval:
    """The share of a box that ends at a saddle."""
    return share(int((rows["end"] == SADDLE).sum()), len(rows))


def claims(measured: Measured) -> Iterator[Claim]:
    """Beside saddles first, then from whole boxes."""
    for method in UNNORMALISED:
        theirs = method == "USAM"
        extra = "" if theirs else "Renormalising scales the step and turns no direction: it frees nothing. "
        rows = measured["thresholds"]
        count = rows[rows["method"] == method].groupby("function")["saddle"].nunique().sum()
        yield Claim(
            f"{WORDS[method]} is held at a saddle of eigenvalue -|lambda| if and only if rho*|lambda| > 1.",
            PAPER if theirs else OURS, threshold(method), "threshold",
            notes=(f"{extra}{count} saddles, flow and discrete steps, starts at a distance of 0.001.",),
        )  # fmt: skip
    for how, words in (("flow", "flow"), ("steps", "discrete steps")):
        yield Claim(
            "With the normalised ascent a saddle holds every start with ||g|| < rho*|lambda|, whatever rho is, and "
            f"along its descending direction no other ({words}; SAM and SSAM alike).",
            Source("ours, theory: fenland.theory.saddle.capturing_gradient", ours=True), region(how), "region",
        )  # fmt: skip
    yield Claim(
        "||g|| < rho*|lambda| is the whole region of capture.", Source("ours, as a question to the theory", ours=True),
        beyond, "region", notes=(
            "Starts at random angles. Directions of positive curvature fade first and take ||g|| below rho*|lambda| on "
            "the way: the condition is sufficient, and necessary on the descending direction alone.",
        ),
    )  # fmt: skip
    yield Claim(
        "From a whole box of starts, unnormalised SAM and SSAM end at saddles past the threshold of the strongest "
        "one, and neither they nor gradient descent below it.", PAPER.at("the threshold; boxes ours"), boxes,
        "captured", notes=("Exact gradients from the centres of a grid of cells.",),
    )  # fmt: skip
    yield Claim(
        "Normalised SAM has no threshold: saddles hold a share of the box that grows with rho and is small only "
        "because the region of capture is.", OURS, any_radius, "captured",
        notes=(f"Functions in this order: {', '.join(measured['basins']['function'].unique())}.",),
    )  # fmt: skip
    for method in ("USAM", "SAM", "SSAM-U") if "beale" in measured.config.functions else ():
        yield Claim(
            f"On the Beale function gradient descent reaches the minimum where {WORDS[method]} stays at the saddle.",
            PAPER.at("its example") if method != "SSAM-U" else Source(f"{PAPER}; SSAM ours"), on_beale(method),
            "basins-beale",
        )  # fmt: skip


@statement
def threshold(measured: Measured, method: str) -> Finding:
    """Nobody is held below the threshold, everybody past it."""
    rows = measured["thresholds"]
    rows = rows[rows["method"] == method]
    below, above = rows[rows["ratio"] < 1], rows[rows["ratio"] > 1]
    return Finding(
        f"0 % held up to rho*|lambda| = {below['ratio'].max():g}, 100 % from {above['ratio'].min():g}",
        f"{percent(held(below))} below, {percent(held(above))} above",
        bool((below["captured"] == 0).all() and (above["captured"] == above["starts"]).all()),
    )


@statement
def region(measured: Measured, how: str) -> Finding:
    """Everybody is held inside the region, and along the descending direction nobody outside."""
    rows = measured["regions"]
    rows = rows[rows["how"] == how]
    inside = held(rows[rows["ratio"] < 1])
    out = held(rows[(rows["ratio"] > 1) & (rows["where"] == "descending")])
    needed = 1.0 if how == "flow" else STEPS_SHARE
    exact = "100 % inside, 0 % outside"
    about = f"at least {100 * needed:g} % inside, at most {100 - 100 * needed:g} %"
    return Finding(
        exact if how == "flow" else about, f"{percent(inside)} inside, {percent(out)} outside",
        bool(inside.mean >= needed and out.mean <= 1 - needed),
        f"||g|| from {rows['ratio'].min():g} to {rows['ratio'].max():g} times rho*|lambda|, rho = 0.001.",
    )  # fmt: skip


def beyond(measured: Measured) -> Finding:
    """Who is held from outside the region, in any direction."""
    rows = measured["regions"]
    found = held(rows[(rows["ratio"] > 1) & (rows["where"] == "around") & (rows["how"] == "flow")])
    return Finding("0 % held outside it", f"{percent(found)} held", found.high < 0.05)


def boxes(measured: Measured) -> Finding:
    """Below every saddle's threshold nothing ends at one; past the strongest's something does."""
    ends = measured["basins"]
    below: list[Interval] = []
    past: list[Interval] = []
    for name, stage in scenes_of(measured.config).items():
        rows = ends[(ends["function"] == name) & ends["method"].isin(UNNORMALISED)]
        for (_, rho), part in rows.groupby(["method", "rho"]):
            (past if float(rho) * strongest(stage) > 1 else below).append(at_saddle(part))  # type: ignore[arg-type]
    sgd = at_saddle(ends[ends["method"] == "SGD"])
    return Finding(
        "0 % below and for gradient descent, more than 0 % past it for every function, method and radius",
        f"at most {percent(max(below))} below, at least {percent(min(past))} past it; gradient descent {percent(sgd)}",
        max(below).mean == 0 and sgd.mean == 0 and min(past).low > 0,
    )


def any_radius(measured: Measured) -> Finding:
    """Normalised SAM's share at the smallest radius and at the largest, function by function."""
    rows = measured["basins"]
    rows = rows[rows["method"] == "SAM"]
    pairs = []
    for _, part in rows.groupby("function", sort=False):
        pairs.append([at_saddle(part[part["rho"] == bound]) for bound in (part["rho"].min(), part["rho"].max())])
    small, large = (", ".join(percent(pair[k]) for pair in pairs) for k in (0, 1))
    return Finding(
        "share at the largest radius above that at the smallest, on every function",
        f"smallest radius {small}; largest {large}", all(big.low > least.high for least, big in pairs),
    )  # fmt: skip


@statement
def on_beale(measured: Measured, method: str) -> Finding:
    """The share of starts from which descent reaches the minimum and a method the saddle."""
    rows = measured["basins"]
    rows = rows[rows["function"] == "beale"]
    plain = rows[rows["method"] == "SGD"].set_index(["x", "y"])["end"] == MINIMUM
    found = {}
    for rho, part in rows[rows["method"] == method].groupby("rho"):
        stays = part.set_index(["x", "y"])["end"] == SADDLE
        found[float(rho)] = share(int((stays & plain.reindex(stays.index)).sum()), len(stays))  # type: ignore[arg-type]
    best = max(found.values(), key=lambda x: x.mean)
    strength = -scenes_of(measured.config)["beale"].saddles[0].least
    return Finding(
        "a share of starts above 0", "; ".join(f"rho = {rho:.3g}: {percent(x)}" for rho, x in found.items()),
        best.low > 0 and best.mean > 0,
        f"Of all starts of the box, not of a chosen one. 1/|lambda| = {1 / strength:.4f}; the claim is about some "
        "start and some radius, which the summary does not name.",
    )  # fmt: skip


def by(rows: pd.DataFrame, column: str, of: Callable[[pd.DataFrame], Interval]) -> dict[Any, Interval]:
    """A share by the values of a column."""
    return {value: of(part) for value, part in rows.groupby(column)}


def threshold_drawn(measured: Measured) -> list[Panel]:
    """Who is held by rho*|lambda|."""
    rows = measured["thresholds"]
    lines = [
        joined(f"{NAMES[m]}, {how}", by(rows[(rows["method"] == m) & (rows["how"] == how)], "ratio", held))
        for m in UNNORMALISED
        for how in ("flow", "steps")
    ]
    return [Panel(lines, "ρ · |λ|", marks=[Mark(1.0, "theory")], y_limits=(-0.05, 1.05))]


def region_drawn(measured: Measured) -> list[Panel]:
    """Who is held by the length of the gradient."""
    rows = measured["regions"]
    rows = rows[rows["how"] == "flow"]
    words = {"descending": "on the descending direction", "around": "all directions"}
    lines = [
        joined(f"{m}, {text}", by(rows[(rows["method"] == m) & (rows["where"] == where)], "ratio", held))
        for where, text in words.items()
        for m in NORMALISED
    ]
    return [Panel(lines, "‖g‖ at the start / (ρ · |λ|)", marks=[Mark(1.0, "theory")], y_limits=(-0.05, 1.05))]


def captured_drawn(measured: Measured) -> list[Panel]:
    """The share of each box that ends at a saddle."""
    panels, ends = [], measured["basins"]
    for name, stage in scenes_of(measured.config).items():
        rows = ends[ends["function"] == name]
        lines = [joined(NAMES[m], by(rows[rows["method"] == m], "rho", at_saddle)) for m in NAMES if m != "SGD"]
        panels.append(Panel(lines, "radius ρ", stage.name, log_x=True, marks=[Mark(1 / strongest(stage), "1/|λ|")]))
    return panels


def scenes_drawn(measured: Measured) -> list[Drawn]:
    """Portrait and basins of each function."""
    found = []
    for name, stage in scenes_of(measured.config).items():
        fields, paths, ends = (measured[t][measured[t]["function"] == name] for t in ("fields", "paths", "basins"))
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
            "All saddles of the functions together, starts at a distance of 0.001. Bands: 95 % (Wilson).",
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
        "The paper's own start on the Beale function, its radii and learning rate are run by the study own-settings. "
        "Here it is all starts of the box x in [-1, 4], y in [-1, 1.5], with lr 0.001 for 4000 steps.",
        "f = x^2 - m*y^2 is confined by k*y^4, so that what escapes has a minimum to reach; |lambda| is 2m.",
        "Himmelblau's function is the third: its four saddles have four different eigenvalues, it is bounded below and "
        "grows in all directions, so that the threshold 1/|lambda| is tested at each of them on one function.",
        "Both ascents are run: e = rho*g (unnormalised) and e = rho*g/||g|| (normalised); SSAM beside each.",
        "Beside a saddle, held means nearer along its descending direction after a time of 2/|lambda|; the flow is "
        "integrated by Runge-Kutta, steps are the optimizer's own.",
    ),
)  # fmt: skip
