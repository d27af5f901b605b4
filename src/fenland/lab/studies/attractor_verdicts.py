"""What holds SAM at a saddle, judged from the tables of the study `attractor`."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fenland.lab.store.statistics import Interval
from fenland.lab.studies.attractor_functions import Stage
from fenland.lab.studies.attractor_runs import ENDS
from fenland.lab.study.base import Tables, Verdict
from fenland.lab.study.shares import percent, share

PAPER = "Stability Analysis of SAM, arXiv 2301.06308"
MINIMUM, SADDLE = ENDS.index("minimum"), ENDS.index("saddle")
WORDS = {"USAM": "SAM (unnormalised)", "SSAM-U": "SSAM (unnormalised)", "SAM": "SAM (normalised)",
         "SSAM": "SSAM (normalised)", "SGD": "gradient descent"}  # fmt: skip
STEPS_SHARE = 0.99  # of starts that discrete steps must judge like the flow


def judge(scenes: Mapping[str, Stage], tables: Tables) -> list[Verdict]:
    """All verdicts."""
    verdicts = [_iff(tables["thresholds"], method) for method in ("USAM", "SSAM-U")]
    verdicts += [_region(tables["regions"], how) for how in ("flow", "steps")]
    verdicts += [_beyond(tables["regions"]), _boxes(scenes, tables["basins"]), _any_radius(tables["basins"])]
    if "beale" in scenes:
        verdicts += [_beale(tables["basins"], scenes["beale"], method) for method in ("USAM", "SAM", "SSAM-U")]
    return verdicts


def _iff(rows: pd.DataFrame, method: str) -> Verdict:
    rows = rows[rows["method"] == method]
    below, above = rows[rows["ratio"] < 1], rows[rows["ratio"] > 1]
    held = [share(int(x["captured"].sum()), int(x["starts"].sum())) for x in (below, above)]
    saddles = rows.groupby("function")["saddle"].nunique().sum()
    theirs = method == "USAM"
    extra = "" if theirs else "Renormalising scales the step and turns no direction: it frees nothing. "
    return Verdict(
        f"{WORDS[method]} is held at a saddle of eigenvalue -|lambda| if and only if rho*|lambda| > 1.",
        PAPER if theirs else "ours",
        f"0 % held up to rho*|lambda| = {below['ratio'].max():g}, 100 % from {above['ratio'].min():g}",
        f"{percent(held[0])} below, {percent(held[1])} above",
        bool((below["captured"] == 0).all() and (above["captured"] == above["starts"]).all()),
        f"{extra}{saddles} saddles, flow and discrete steps, starts at a distance of 0.001.",
        "threshold",
    )


def _region(rows: pd.DataFrame, how: str) -> Verdict:
    rows = rows[rows["how"] == how]
    inside, out = rows[rows["ratio"] < 1], rows[(rows["ratio"] > 1) & (rows["where"] == "descending")]
    held = [share(int(x["captured"].sum()), int(x["starts"].sum())) for x in (inside, out)]
    exact = how == "flow"
    needed = 1.0 if exact else STEPS_SHARE
    return Verdict(
        "With the normalised ascent a saddle holds every start with ||g|| < rho*|lambda|, whatever rho is, and along "
        f"its descending direction no other ({'flow' if exact else 'discrete steps'}; SAM and SSAM alike).",
        "ours, theory: fenland.theory.saddle.capturing_gradient",
        "100 % inside, 0 % outside"
        if exact
        else f"at least {100 * needed:g} % inside, at most {100 - 100 * needed:g} %",
        f"{percent(held[0])} inside, {percent(held[1])} outside",
        bool(held[0].mean >= needed and held[1].mean <= 1 - needed),
        f"||g|| from {rows['ratio'].min():g} to {rows['ratio'].max():g} times rho*|lambda|, rho = 0.001.",
        "region",
    )


def _beyond(rows: pd.DataFrame) -> Verdict:
    rows = rows[(rows["ratio"] > 1) & (rows["where"] == "around") & (rows["how"] == "flow")]
    found = share(int(rows["captured"].sum()), int(rows["starts"].sum()))
    return Verdict(
        "||g|| < rho*|lambda| is the whole region of capture.",
        "ours, as a question to the theory",
        "0 % held outside it",
        f"{percent(found)} held",
        found.high < 0.05,
        "Starts at random angles. Directions of positive curvature fade first and take ||g|| below rho*|lambda| on the "
        "way: the condition is sufficient, and necessary on the descending direction alone.",
        "region",
    )


def _boxes(scenes: Mapping[str, Stage], basins: pd.DataFrame) -> Verdict:
    """Below every saddle's threshold nothing ends at one; past the strongest's something does."""
    below: list[Interval] = []
    past: list[Interval] = []
    for name, stage in scenes.items():
        strongest = max(-s.least for s in stage.saddles)
        rows = basins[(basins["function"] == name) & basins["method"].isin(["USAM", "SSAM-U"])]
        for (_, rho), part in rows.groupby(["method", "rho"]):
            found = share(int((part["end"] == SADDLE).sum()), len(part))
            (past if float(rho) * strongest > 1 else below).append(found)  # type: ignore[arg-type]
    plain = basins[basins["method"] == "SGD"]
    sgd = share(int((plain["end"] == SADDLE).sum()), len(plain))
    return Verdict(
        "From a whole box of starts, unnormalised SAM and SSAM end at saddles past the threshold of the strongest "
        "one, and neither they nor gradient descent below it.",
        PAPER + ", the threshold; boxes ours",
        "0 % below and for gradient descent, more than 0 % past it for every function, method and radius",
        f"at most {percent(max(below))} below, at least {percent(min(past))} past it; gradient descent {percent(sgd)}",
        max(below).mean == 0 and sgd.mean == 0 and min(past).low > 0,
        "Exact gradients from the centres of a grid of cells.",
        "captured",
    )


def _any_radius(basins: pd.DataFrame) -> Verdict:
    rows = basins[(basins["method"] == "SAM")]
    found = {
        (function, rho): share(int((part["end"] == SADDLE).sum()), len(part))
        for (function, rho), part in rows.groupby(["function", "rho"])
    }
    largest = [max((r, x) for (f, r), x in found.items() if f == name)[1] for name in rows["function"].unique()]
    smallest = [min((r, x) for (f, r), x in found.items() if f == name)[1] for name in rows["function"].unique()]
    return Verdict(
        "Normalised SAM has no threshold: saddles hold a share of the box that grows with rho and is small only "
        "because the region of capture is.",
        "ours",
        "share at the largest radius above that at the smallest, on every function",
        f"smallest radius {', '.join(percent(x) for x in smallest)}; largest {', '.join(percent(x) for x in largest)}",
        all(big.low > small.high for big, small in zip(largest, smallest, strict=True)),
        f"Functions in this order: {', '.join(rows['function'].unique())}.",
        "captured",
    )


def _beale(basins: pd.DataFrame, stage: Stage, method: str) -> Verdict:
    rows = basins[basins["function"] == "beale"]
    plain = rows[rows["method"] == "SGD"].set_index(["x", "y"])["end"] == MINIMUM
    found = {}
    for rho, part in rows[rows["method"] == method].groupby("rho"):
        held = part.set_index(["x", "y"])["end"] == SADDLE
        both = held & plain.reindex(held.index)
        found[float(rho)] = share(int(both.sum()), len(both))  # type: ignore[arg-type]
    best = max(found.values(), key=lambda x: x.mean)
    strength = -stage.saddles[0].least
    return Verdict(
        f"On the Beale function gradient descent reaches the minimum where {WORDS[method]} stays at the saddle.",
        PAPER + (", its example" if method != "SSAM-U" else "; SSAM ours"),
        "a share of starts above 0",
        "; ".join(f"rho = {rho:.3g}: {percent(x)}" for rho, x in found.items()),
        best.low > 0 and best.mean > 0,
        f"Of all starts of the box, not of a chosen one. 1/|lambda| = {1 / strength:.4f}; the claim is about some "
        "start and some radius, which the summary does not name.",
        "basins-beale",
    )
