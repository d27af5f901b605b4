"""Who reaches the flatter minimum, judged from the tables of the study `landscapes`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.base import Tables, Verdict
from fenland.lab.study.shares import percent, share

SOURCE = "Investigations on SAM, stated future work"
TITLES = {"SGD": "descent", "RSAM": "Riemannian SAM", "FisherSAM": "Fisher-SAM",
          "FisherSAM projected": "Fisher-SAM projected"}  # fmt: skip
EXACT = 1e-9


def judge(tables: Tables) -> list[Verdict]:
    """All verdicts: each newer method against SAM and ASAM, landscape by landscape."""
    ends = tables["ends"]
    verdicts = []
    for design in ends["design"].unique():
        rows = ends[ends["design"] == design]
        if "RSAM" in set(rows["method"]):
            pairs = [("RSAM", "SGD"), ("RSAM", "SAM projected"), ("RSAM", "SAM retracted"), ("RSAM", "ASAM projected"),
                     ("FisherSAM projected", "SAM projected")]  # fmt: skip
        else:
            pairs = [("SAM", "SGD"), ("FisherSAM", "SAM"), ("FisherSAM", "ASAM"), ("ASAM", "SAM")]
        verdicts += [_pair(rows, str(design), ours, theirs) for ours, theirs in pairs]
    return [*verdicts, _ridge(ends), _same_step(tables["agreement"])]


def scores(rows: pd.DataFrame, method: str, design: str) -> pd.Series:
    """One number a start, mean over the lengths: the share that ended flat, or minus the log of the curvature."""
    part = rows[rows["method"] == method]
    value = -np.log(part["score"]) if design == "hyperbola" else part["score"]
    return value.groupby(part["start"]).mean()  # NaN is left out


def difference(rows: pd.DataFrame, design: str, ours: str, theirs: str) -> Interval:
    """Mean score of the one minus that of the other, start by start, with its interval."""
    return interval((scores(rows, ours, design) - scores(rows, theirs, design)).dropna())


def title(method: str) -> str:
    """A method as it is written."""
    return TITLES.get(method, method)


def _pair(rows: pd.DataFrame, design: str, ours: str, theirs: str) -> Verdict:
    found = difference(rows, design, ours, theirs)
    curve = design == "hyperbola"
    factor = 100.0
    words = f"{factor * found.mean:+.1f} [{factor * found.low:+.1f}, {factor * found.high:+.1f}]"
    unit = "per cent less curvature (log)" if curve else "percentage points"
    same = found.mean == 0 and found.low == found.high
    who = title(ours)[0].upper() + title(ours)[1:]
    does = "ends at flatter minima than" if curve else "reaches the flatter minimum more often than"
    return Verdict(
        f"{who} {does} {title(theirs)}: {design}.",
        SOURCE if theirs != "SGD" else "ours: SAM's own promise",
        f"a difference above 0, paired over starts, mean over lengths of e ({unit})",
        f"{words} {unit}; {_by_length(rows, ours, design)} against {_by_length(rows, theirs, design)}",
        False if same or found.high < 0 else found.low > 0 or None,
        f"{found.n} starts, e of the same mean Euclidean length. {_held(rows, [ours, theirs], design)}"
        + ("" if same or found.excludes_zero else " The interval holds zero: no difference is shown."),
        "curvature" if curve else "shares",
    )


def _held(rows: pd.DataFrame, methods: list[str], design: str) -> str:
    """What was held where the gradient of the loss is not that of a well."""
    where = "never came to the curve and are left out" if design == "hyperbola" else "were held on the ridge in between"
    parts = [f"{title(m)} {100 * rows[rows['method'] == m]['held'].mean():.1f} %" for m in methods]
    return f"Of their ends {', '.join(parts)} {where}."


def _by_length(rows: pd.DataFrame, method: str, design: str) -> str:
    part = rows[rows["method"] == method]
    words = []
    for length, cell in part.groupby("length"):
        at = "" if method == "SGD" else f" at {length:g}"
        if design == "hyperbola":
            words.append(f"{cell['score'].median():.2f}{at}")
        else:
            words.append(f"{percent(share(int(cell['score'].sum()), len(cell)))}{at}")
    return f"{title(method)} {', '.join(words)}"


def _ridge(ends: pd.DataFrame) -> Verdict:
    rows = ends[ends["method"] == "RSAM"]
    found = {key: share(int(x["held"].sum()), len(x)) for key, x in rows.groupby(["design", "length"])}
    plain = ends[(ends["method"] == "SGD") & ends["design"].isin(rows["design"])]
    sgd = share(int(plain["held"].sum()), len(plain))
    return Verdict(
        "Riemannian SAM leaves the ridge between two wells, as descent does.",
        "ours, to explain the shares on manifolds",
        f"no more starts left on it than by descent: {percent(sgd)}",
        "; ".join(f"{design} at {length:g}: {percent(x)}" for (design, length), x in found.items()),
        all(x.low <= sgd.high for x in found.values()),
        "The normalised ascent climbs over the ridge and meets the slope of the other side, which sends it back: a "
        "ridge attracts as a saddle does (study attractor). What is held there falls to the sharp side in the end, "
        "whose slope is steeper.",
        "manifolds",
    )


def _same_step(agreement: pd.DataFrame) -> Verdict:
    gap = float(agreement["gap"].max())
    return Verdict(
        "All starts at once take the steps of fenland.RiemannianSAM over geoopt's RiemannianSGD.",
        "ours, to trust the figures above",
        f"at most {EXACT:g} apart after {int(agreement['steps'].max())} steps",
        f"{gap:.1e} on {', '.join(agreement['design'])}",
        gap <= EXACT,
        "The study steps a thousand starts in one batch by the optimizer's rule; here a few run the optimizer itself.",
        "shares",
    )
