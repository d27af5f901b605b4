"""The claims of the study `landscapes`: the report only names the question, so that all of them are ours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study import Claim, Contrast, Finding, Measured, Source, ours
from fenland.lab.study.quantities import statement
from fenland.lab.study.words import by, percent, share
from fenland.words import capital

FUTURE = ours("what Investigations on SAM names as future work, and does not try")
TITLES = {"SGD": "descent", "RSAM": "Riemannian SAM", "FisherSAM": "Fisher-SAM",
          "FisherSAM projected": "Fisher-SAM projected"}  # fmt: skip
# Who is claimed to be better than whom.
ON_FLAT = (("SAM", "SGD"), ("FisherSAM", "SAM"), ("FisherSAM", "ASAM"), ("ASAM", "SAM"))
ON_CURVED = (("RSAM", "SGD"), ("RSAM", "SAM projected"), ("RSAM", "SAM retracted"), ("RSAM", "ASAM projected"),
             ("FisherSAM projected", "SAM projected"))  # fmt: skip
EXACT = 1e-9


def title(method: str) -> str:
    """A method as it is written."""
    return TITLES.get(method, method)


def claims(measured: Measured) -> Iterator[Claim]:
    """Each newer method against SAM and ASAM, landscape by landscape."""
    ends = measured["ends"]
    for design, rows in by(ends, "design"):
        for mine, theirs in ON_CURVED if "RSAM" in set(rows["method"]) else ON_FLAT:
            yield _pair(rows, str(design), mine, theirs)
    yield Claim(
        "Riemannian SAM leaves the ridge between two wells, as descent does.",
        Source("ours, to explain the shares on manifolds", ours=True), ridge, "manifolds",
        notes="The normalised ascent climbs over the ridge and meets the slope of the other side, which sends it back: "
        "a ridge attracts as a saddle does (study attractor). What is held there falls to the sharp side in the end, "
        "whose slope is steeper.",
    )  # fmt: skip
    yield Claim(
        "All starts at once take the steps of fenland.RiemannianSAM over geoopt's RiemannianSGD.",
        Source("ours, to trust the figures above", ours=True), same_step, "shares",
        notes="The study steps a thousand starts in one batch by the optimizer's rule; here a few run the optimizer "
        "itself.",
    )  # fmt: skip


def _pair(rows: pd.DataFrame, design: str, mine: str, theirs: str) -> Claim:
    curve = design == "hyperbola"
    unit = "per cent less curvature (log)" if curve else "percentage points"
    does = "ends at flatter minima than" if curve else "reaches the flatter minimum more often than"
    found = difference(rows, design, mine, theirs)
    where = "never came to the curve and are left out" if curve else "were held on the ridge in between"
    shares = [f"{title(m)} {100 * rows[rows['method'] == m]['held'].mean():.1f} %" for m in (mine, theirs)]
    return Claim(
        f"{capital(title(mine))} {does} {title(theirs)}: {design}.",
        FUTURE if theirs != "SGD" else ours("SAM's own promise"), _more(rows, design, mine, theirs, unit),
        "curvature" if curve else "shares",
        expected=f"a difference above 0, paired over starts, mean over lengths of e ({unit})",
        notes=f"{found.n} starts, e of the same mean Euclidean length. Of their ends {', '.join(shares)} {where}.",
    )  # fmt: skip


@statement
def _more(measured: Measured, rows: pd.DataFrame, design: str, mine: str, theirs: str, unit: str) -> Finding:
    found = difference(rows, design, mine, theirs)
    lengths = " against ".join(_by_length(rows, name, design) for name in (mine, theirs))
    contrast = Contrast(lambda _: {"": found}, f"{{value}} {unit}; {lengths}", ".1f", over="starts") > 0
    same = found.mean == 0 and found.low == found.high
    said = contrast(measured)
    open_ = "" if same else "The interval holds zero: no difference is shown."
    return Finding(said.expected, said.measured, False if same else said.holds, open=open_)


def difference(rows: pd.DataFrame, design: str, mine: str, theirs: str) -> Interval:
    """Mean score of the one minus that of the other in per cent, start by start, with its interval.

    A score is the share of the lengths at which a start ended flat, or minus the log of the curvature.
    """

    def scores(method: str) -> pd.Series:
        part = rows[rows["method"] == method]
        value = -np.log(part["score"]) if design == "hyperbola" else part["score"]
        return 100.0 * value.groupby(part["start"]).mean()  # NaN is left out

    return interval((scores(mine) - scores(theirs)).dropna())


def _by_length(rows: pd.DataFrame, method: str, design: str) -> str:
    words = []
    for length, cell in rows[rows["method"] == method].groupby("length"):
        at = "" if method == "SGD" else f" at {length:g}"
        score = cell["score"]
        words.append((f"{score.median():.2f}" if design == "hyperbola" else percent(flat(cell))) + at)
    return f"{title(method)} {', '.join(words)}"


def flat(rows: pd.DataFrame) -> Interval:
    """The share that ended in the flat well."""
    return share(int(rows["score"].sum()), len(rows))


def ridge(measured: Measured) -> Finding:
    """Who is left on the ridge, Riemannian SAM beside descent."""
    ends = measured["ends"]
    rows = ends[ends["method"] == "RSAM"]
    found = {key: share(int(x["held"].sum()), len(x)) for key, x in rows.groupby(["design", "length"])}
    plain = ends[(ends["method"] == "SGD") & ends["design"].isin(rows["design"])]
    sgd = share(int(plain["held"].sum()), len(plain))
    return Finding(
        f"no more starts left on it than by descent: {percent(sgd)}",
        "; ".join(f"{design} at {length:g}: {percent(x)}" for (design, length), x in found.items()),
        all(x.low <= sgd.high for x in found.values()),
    )


def same_step(measured: Measured) -> Finding:
    """The batched step against the optimizer's."""
    rows = measured["agreement"]
    apart = float(rows["gap"].max())
    return Finding(
        f"at most {EXACT:g} apart after {int(rows['steps'].max())} steps",
        f"{apart:.1e} on {', '.join(rows['design'])}", apart <= EXACT,
    )  # fmt: skip
