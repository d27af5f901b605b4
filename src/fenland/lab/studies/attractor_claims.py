"""What is claimed of the saddle as an attractor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from fenland.lab.replicas.capture import CLOSE, ENDS, Stage, stages
from fenland.lab.store.statistics import Interval
from fenland.lab.study import Claim
from fenland.lab.study.parts import OURS, Finding, Measured, Source, ours
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import select
from fenland.lab.study.words import percent, share

PAPER = Source("Stability Analysis of SAM, arXiv 2301.06308")
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
MINIMUM, SADDLE = ENDS.index("minimum"), ENDS.index("saddle")
WORDS = {"USAM": "SAM (unnormalised)", "SSAM-U": "SSAM (unnormalised)", "SAM": "SAM (normalised)"}
CLEAR = 0.9  # of the threshold: up to there a run is long enough to leave a saddle
STEPS_SHARE = 0.99  # of starts that discrete steps must judge like the flow


def scenes_of(config: Any) -> dict[str, Stage]:
    """The functions of a configuration, by name."""
    every = stages(config.m, config.k)
    return {name: every[name] for name in config.functions}


def strongest(stage: Stage) -> float:
    """|lambda| of the strongest saddle."""
    return max(-saddle.least for saddle in stage.saddles)


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
            notes=f"{extra}{count} saddles, flow and discrete steps, starts at a distance of {CLOSE:g}. Farther out "
            "the function is no quadratic: at 0.001 one start in 200 at a saddle, where it ascends, differs.",
        )  # fmt: skip
    for how, words in (("flow", "flow"), ("steps", "discrete steps")):
        yield Claim(
            "With the normalised ascent a saddle holds every start with ||g|| < rho*|lambda|, whatever rho is, and "
            f"along its descending direction no other ({words}; SAM and SSAM alike).",
            Source("ours, theory: fenland.theory.saddle.capturing_gradient", ours=True), region(how), "region",
        )  # fmt: skip
    yield Claim(
        "||g|| < rho*|lambda| is the whole region of capture.", Source("ours, as a question to the theory", ours=True),
        beyond, "region",
        notes="Starts at random angles. Directions of positive curvature fade first and take ||g|| below rho*|lambda| "
        "on the way: the condition is sufficient, and necessary on the descending direction alone.",
    )  # fmt: skip
    yield Claim(
        "From a whole box of starts, unnormalised SAM and SSAM end at saddles past the threshold of the strongest "
        f"one; up to {CLEAR:g} of it neither they nor gradient descent do.",
        ours("Theorem 1's threshold, from far away too"), boxes, "captured",
        notes="Exact gradients from the centres of a grid of cells. Nearer to the threshold the escape, at the rate "
        "|lambda|*(1 - rho*|lambda|), takes longer than the run.",
    )  # fmt: skip
    yield Claim(
        "Normalised SAM has no threshold: saddles hold a share of the box that grows with rho and is small only "
        "because the region of capture is.", OURS, any_radius, "captured",
        notes=f"Functions in this order: {', '.join(measured['basins']['function'].unique())}.",
    )  # fmt: skip
    for method in ("USAM", "SAM", "SSAM-U") if "beale" in measured.config.functions else ():
        yield Claim(
            f"On the Beale function gradient descent reaches the minimum where {WORDS[method]} stays at the saddle.",
            ours("the paper's example from a whole box of starts; its own start is that of the study own-settings"),
            on_beale(method), "basins-beale",
        )  # fmt: skip


@statement
def threshold(measured: Measured, method: str) -> Finding:
    """Nobody is held below the threshold, everybody past it."""
    rows = select(measured["thresholds"], method=method)
    below, above = rows[rows["ratio"] < 1], rows[rows["ratio"] > 1]
    return Finding(
        f"0 % held up to rho*|lambda| = {below['ratio'].max():g}, 100 % from {above['ratio'].min():g}",
        f"{percent(held(below))} below, {percent(held(above))} above",
        bool((below["captured"] == 0).all() and (above["captured"] == above["starts"]).all()),
    )


@statement
def region(measured: Measured, how: str) -> Finding:
    """Everybody is held inside the region, and along the descending direction nobody outside."""
    rows = select(measured["regions"], how=how)
    inside = held(rows[rows["ratio"] < 1])
    out = held(select(rows[rows["ratio"] > 1], where="descending"))
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
    rows = select(measured["regions"], where="around", how="flow")
    found = held(rows[rows["ratio"] > 1])
    return Finding("0 % held outside it", f"{percent(found)} held", found.high < 0.05)


def boxes(measured: Measured) -> Finding:
    """Clearly below every saddle's threshold nothing ends at one; past the strongest's something does."""
    ends = measured["basins"]
    below: list[Interval] = []
    near: list[Interval] = []
    past: list[Interval] = []
    for name, stage in scenes_of(measured.config).items():
        rows = select(ends, function=name, method=UNNORMALISED)
        for (_, rho), part in rows.groupby(["method", "rho"]):
            ratio = float(rho) * strongest(stage)  # type: ignore[arg-type]
            kind = past if ratio > 1 else below if ratio <= CLEAR * (1 + 1e-9) else near
            kind.append(at_saddle(part))
    sgd = at_saddle(select(ends, method="SGD"))
    between = f" (between it and the threshold at most {percent(max(near))})" if near else ""
    return Finding(
        f"0 % up to {CLEAR:g} and for gradient descent, more than 0 % past 1 for every function, method and radius",
        f"at most {percent(max(below))} up to {CLEAR:g}{between}, at least {percent(min(past))} past 1; "
        f"gradient descent {percent(sgd)}",
        max(below).mean == 0 and sgd.mean == 0 and min(past).low > 0,
    )


def any_radius(measured: Measured) -> Finding:
    """Normalised SAM's share at the smallest radius and at the largest, function by function."""
    rows = select(measured["basins"], method="SAM")
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
    rows = select(measured["basins"], function="beale")
    plain = select(rows, method="SGD").set_index(["x", "y"])["end"] == MINIMUM
    found = {}
    for rho, part in select(rows, method=method).groupby("rho"):
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
