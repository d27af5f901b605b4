"""What the paths say: every number from the tables of the study `diffusion`, with intervals over groups of paths."""

from __future__ import annotations

from itertools import product

import pandas as pd

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.studies.diffusion_fits import exponent, gap
from fenland.lab.study.base import Tables, Verdict

PAPER = "Stability Analysis of SAM, arXiv 2301.06308"
SIGNS, NORMAL = "optimizer signs", "optimizer normal"
# An exponent within this of a whole number is taken for it; the models lie 1 apart.
NEAR = 0.15
SIGMAS = 4  # of some hundred points at once
EXPECTED = {"descent": 1, "independent": 1, "shared": 3}  # to first order in rho


def judge(lr: float, paths: int, tables: Tables) -> list[Verdict]:
    """All verdicts."""
    fits, means, last = tables["fits"], tables["means"], tables["last"]
    return [
        _slower(last, ["USAM"], SIGNS, "unnormalised ascent, the real optimizer on mini-batches", PAPER),
        _slower(last, ["SAM"], "shared", "normalised ascent, replicas with shared noise", PAPER),
        _published(fits, lr),
        _some_model(fits),
        _identified(fits),
        _closed_form(means, paths),
        _varied(fits),
        _between(last),
    ]


def text(found: Interval, digits: int = 2) -> str:
    """A mean with its interval."""
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _cells(fits: pd.DataFrame) -> list[tuple[float, int]]:
    rhos = sorted(x for x in fits["rho"].unique() if x > 0)
    return list(product(rhos, sorted(fits["batch"].unique())))


def _saddle(fits: pd.DataFrame) -> float:
    return float(fits["curvature"].min())


def ratio(last: pd.DataFrame, source: str, method: str, rho: float, batch: int) -> Interval:
    """MSD at the end over SGD's at the saddle, group by group on the same noise."""
    rows = last[(last["source"] == source) & (last["batch"] == batch) & (last["curvature"] == last["curvature"].min())]
    ours = rows[(rows["method"] == method) & (rows["rho"] == rho)].set_index("group")["msd"]
    sgd = rows[rows["method"] == "SGD"].set_index("group")["msd"]
    return interval(ours / sgd)


def _slower(last: pd.DataFrame, methods: list[str], source: str, which: str, whose: str) -> Verdict:
    found = {(m, r, b): ratio(last, source, m, r, b) for m in methods for r, b in _cells(last)}
    worst = max(found.values(), key=lambda x: x.high)
    best = min(found.values(), key=lambda x: x.mean)
    return Verdict(
        f"SAM's mean squared displacement at a saddle is smaller than SGD's ({which}).",
        whose,
        "ratio to SGD's below 1 at every radius and batch size",
        f"{text(best)} to {text(worst)} at the last time",
        all(x.high < 1 for x in found.values()),
        "Intervals over 20 groups of paths, each beside SGD on the same noise.",
    )


def _published(fits: pd.DataFrame, lr: float) -> Verdict:
    curvature, cells = _saddle(fits), _cells(fits)
    powers = [exponent(fits, SIGNS, r, b, curvature, "quadratic") for r, b in cells]
    first = min(cells)
    measured = gap(fits, SIGNS, *first, curvature, lr)
    return Verdict(
        "At a saddle SAM's mean squared displacement is smaller by 2*eta*t^2*|l|^3*rho/B.",
        PAPER + " (as summarised; full text not at hand)",
        "2 units of eta*t^2*|l|^3*rho/B as rho -> 0, that is a t^2 coefficient of SGD's times (1 + rho*l)^2",
        f"(1 + rho*l)^k with k = {_range(powers)}; {text(measured)} units at rho = {first[0]:g}, B = {first[1]}",
        all(x.low <= 2 <= x.high for x in powers),
        "Real optimizer, one mini-batch in both passes. k units are left as rho -> 0: 3, beside a gap that grows with "
        "t itself. At finite rho the units are (1 - (1 + rho*l)^k) / (rho*|l|), so that near rho*|l| = 0.37 they pass "
        "through 2 for k = 3: a single radius can look like the published value.",
        "exponents",
    )


def _some_model(fits: pd.DataFrame) -> Verdict:
    curvature, cells = _saddle(fits), _cells(fits)
    least = min(r for r, _ in cells)
    found = {m: [exponent(fits, m, r, b, curvature, "quadratic") for r, b in cells if r == least] for m in EXPECTED}
    exact = {m: all(x.low <= 2 <= x.high for x in xs) for m, xs in found.items()}
    return Verdict(
        "One of the three noise models (shared, independent, descent) gives the published factor 2.",
        "ours, to identify the published one",
        "k = 2 in (1 + rho*l)^k",
        "; ".join(f"{m}: {_range(xs)}" for m, xs in found.items()),
        any(exact.values()),
        f"At rho = {least:g}. Two readings would give 2 and no simulated step has either: a diffusion that carries "
        "(1 + rho*l) once (noise in proportion to the curvature of SAM's own step), or noise of twice the variance "
        "(D = eta*|l|/B for eta*|l|/(2B)) that does not pass through the ascent.",
        "exponents",
    )


def _identified(fits: pd.DataFrame) -> Verdict:
    curvature, cells = _saddle(fits), _cells(fits)
    noise = [exponent(fits, SIGNS, r, b, curvature, "linear") for r, b in cells]
    drift = [exponent(fits, SIGNS, r, b, curvature, "drift") for r, b in cells]
    total = [exponent(fits, SIGNS, r, b, curvature, "quadratic") for r, b in cells]
    pairs = [(noise, 2), (drift, 1), (total, 3)]
    return Verdict(
        "A mini-batch that both passes see is the shared noise model: noise variance times (1 + rho*l)^2, drift times "
        "(1 + rho*l).",
        "ours",
        "powers 2 and 1, together 3 in t^2",
        f"noise {_range(noise)}, drift {_range(drift)}, together {_range(total)}",
        all(abs(x.mean - power) < NEAR for xs, power in pairs for x in xs),
        f"Real optimizer, least squares with inputs of one length; a power counts within {NEAR} of a whole number.",
        "exponents",
    )


def _closed_form(means: pd.DataFrame, paths: int) -> Verdict:
    rows = means[means["source"].isin(list(EXPECTED)) & means["theory"].notna() & (means["step"] > 0)]
    relative = (rows["mean"] / rows["theory"] - 1).abs()
    far = relative / (2 / paths) ** 0.5  # w_t is normal: the mean of n squares has the relative error sqrt(2 / n)
    return Verdict(
        "The closed form E[w_t^2] holds for all three noise models, at the saddle and at the minimum.",
        "ours: fenland.theory.diffusion.displacement",
        f"every mean within {SIGMAS} standard errors",
        f"at most {far.max():.2f} standard errors away, {100 * relative.max():.1f} %",
        bool((far < SIGMAS).all()),
        f"{len(rows)} points of {paths} paths each; points of one curve are not independent.",
    )


def _varied(fits: pd.DataFrame) -> Verdict:
    curvature = _saddle(fits)
    cells = [(r, b) for r, b in _cells(fits) if b >= 4 and r == min(x for x, _ in _cells(fits))]
    found = {b: exponent(fits, NORMAL, r, b, curvature, "quadratic") for r, b in cells}
    return Verdict(
        "Batches whose curvature varies hold SAM back further than the noise of the gradient alone.",
        "ours",
        "power 3*(1 + 2/B) for normal inputs, to first order in rho: "
        + ", ".join(f"{3 * (1 + 2 / b):.2f} at B = {b}" for b in found),
        ", ".join(f"{text(x)} at B = {b}" for b, x in found.items()) or "no batch of 4 or more",
        all(abs(x.mean - 3 * (1 + 2 / b)) < 2 * NEAR and x.low > 3 for b, x in found.items()) if found else None,
        "E[l_B*c_B^2] = (1 + 2/B)*l*E[c_B^2] for a batch curvature l_B and noise c_B from the same normal inputs, and "
        f"likewise in the drift. Within {2 * NEAR}.",
        "exponents",
    )


def _between(last: pd.DataFrame) -> Verdict:
    pairs = [("SSAM-U", "USAM"), ("SSAM", "SAM")]
    found = {(a, r, b): (ratio(last, "shared", a, r, b), ratio(last, "shared", sam, r, b))
             for a, sam in pairs for r, b in _cells(last)}  # fmt: skip
    spans = {a: [x for (name, _, _), (x, _) in found.items() if name == a] for a, _ in pairs}
    return Verdict(
        "SSAM diffuses from a saddle faster than SAM and slower than SGD, with either ascent.",
        "ours",
        "ratio to SGD's between SAM's and 1 at every radius and batch size",
        "; ".join(f"{a}: {_range(xs)}" for a, xs in spans.items()),
        all(x.low > sam.high and x.high < 1 for x, sam in found.values()),
        "Replicas with shared noise, a saddle of two modes +-m that share ||g||.",
    )


def _range(found: list[Interval]) -> str:
    """One interval, or the least and the greatest."""
    if not found:
        return "not measured"
    low, high = min(found, key=lambda x: x.mean), max(found, key=lambda x: x.mean)
    return text(low) if low == high else f"{text(low)} to {text(high)}"
