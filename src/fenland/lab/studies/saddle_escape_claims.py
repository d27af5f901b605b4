"""What is claimed of the escape from the autoencoder's saddle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from fenland.lab.figures.plots import plain_number
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study import Claim
from fenland.lab.study.parts import Finding, Measured, Source, ours
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import select
from fenland.lab.study.words import above, percent, share, together

PAPER = Source("Tan et al. 2025 (SSAM), Fig. 1")
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
LAW = Source("theory (fenland.theory), for Fig. 1", ours=True)


def ratio(measured: Measured, method: str, rho: float, column: str = "hit") -> tuple[Interval, int]:
    """Steps to the escape over SGD's from the same start, mean over seeds with its interval; and how many escaped.

    With ``column="rate"`` SGD's rate of growth near the saddle over the method's instead.
    """
    table = measured["escapes"]
    base = select(table, method="SGD").set_index("seed")[column]
    rows = select(table, method=method, rho=rho).set_index("seed")[column]
    found = (rows / base if column == "hit" else base / rows).dropna()
    return interval(found), int(rows.notna().sum())


def free_products(config: Any) -> list[float]:
    """Products rho*m that do not trap."""
    return [p for p in config.products if p < 1]


def claims(measured: Measured) -> Iterator[Claim]:
    """Against theory first, then the paper's order."""
    config, beyond = measured.config, [p for p in measured.config.products if p > 1]
    yield Claim(
        f"SGD escapes within {config.epochs} epochs of {config.steps_per_epoch} steps, and not in {config.epochs} "
        "full-batch steps", ours(f"a reading of {PAPER}, whose caption has neither"), sgd_escapes, "times",
        notes=f"learning rate {config.lr:g}, eigenvalues ±{config.strength:g}, start with deviation "
        f"{config.deviation:g}",
    )  # fmt: skip
    if free_products(config):
        yield Claim(
            "Near the saddle unnormalised SAM is slower than SGD by 1/(1 − rho·m)", LAW, slowdown_near, "times",
            notes="By rho·m. SGD's rate of growth along the descending directions over SAM's, while they are 1.5 to 3 "
            "times as long as at the start.",
        )  # fmt: skip
        yield Claim(
            "Down to half of the loss unnormalised SAM is slower than SGD, by less than 1/(1 − rho·m)", LAW,
            slowdown_whole, "times",
            notes="By rho·m. 1/(1 − rho·m) is the law of the saddle's neighbourhood; on the way down the curvature "
            "falls and rho·m with it, so that the whole way is slowed less.",
        )  # fmt: skip
        yield Claim(
            "Below rho·m = 1 SGD is the fastest, then SSAM, then SAM (unnormalised ascent)",
            Source(f"{PAPER}; fenland.theory"), order, "times",
            notes="Steps over SGD's, by rho·m: SSAM with its interval, then SAM.",
        )  # fmt: skip
    for method in UNNORMALISED if beyond else ():
        turns = "; renormalising turns no direction" if method == "SSAM-U" else ""
        yield Claim(
            f"Past rho·m = 1 {method} is trapped at the saddle", Source(f"theory (fenland.theory){turns}", ours=True),
            trapped(method, beyond), "unnormalised",
            notes=f"rho·m = {', '.join(f'{p:g}' for p in beyond)}; {config.steps} steps",
        )  # fmt: skip
    if measured["escapes"]["method"].isin(NORMALISED).any():
        yield Claim(
            "The normalised ascent is trapped from the start where ‖g‖ < rho·m, and free where the descending part "
            "alone is larger", Source("theory (‖g‖ = m·‖w‖ here)", ours=True), regions, "normalised",
        )  # fmt: skip
        yield Claim(
            "SSAM leaves the saddle before SAM (normalised ascent)", PAPER, normalised_order, "times",
            notes="Steps over SGD's, by rho.",
        )  # fmt: skip


def sgd_escapes(measured: Measured) -> Finding:
    """Whether the published length of training is enough, and whether one step an epoch would be."""
    config, table = measured.config, measured["escapes"]
    hits = interval(table.loc[table["method"] == "SGD", "hit"])
    escaped = share(hits.n, len(config.seeds))
    return Finding(
        f"more than {config.epochs} and at most {config.steps} steps, from most starts",
        f"{hits.mean:.0f} steps{_band(hits, 0)} = {hits.mean / config.steps_per_epoch:.0f} epochs, in "
        f"{percent(escaped)} of {len(config.seeds)} seeds",
        together([above(escaped, 0.5), bool(hits.mean > config.epochs)]),
        open="Not decided: too few seeds say that most escape.",
    )


def slowdowns(measured: Measured, column: str) -> dict[float, tuple[Interval, bool]]:
    """SGD's speed over unnormalised SAM's by rho*m, and whether every start escaped."""
    found = {p: ratio(measured, "USAM", p / measured.config.strength, column) for p in free_products(measured.config)}
    return {p: (each, escaped == len(measured.config.seeds)) for p, (each, escaped) in found.items()}


def slowdown_near(measured: Measured) -> Finding:
    """While the saddle's neighbourhood is left: the law itself."""
    found = slowdowns(measured, "rate")
    return Finding(
        ", ".join(f"{1 / (1 - p):.2f} at {p:g}" for p in found) + ", each within 5 %",
        ", ".join(f"{each.mean:.2f}{_band(each, 2)} at {p:g}" for p, (each, _) in found.items()),
        all(whole and abs(each.mean * (1 - p) - 1) <= 0.05 for p, (each, whole) in found.items()),
    )


def slowdown_whole(measured: Measured) -> Finding:
    """Down to half of the loss: the law is a bound, and this says how much it leaves."""
    found = slowdowns(measured, "hit")
    return Finding(
        ", ".join(f"1 to {1 / (1 - p):.2f} at {p:g}" for p in found),
        ", ".join(
            f"{each.mean:.2f}{_band(each, 2)} at {p:g}, {100 * (1 - each.mean * (1 - p)):.0f} % below the bound"
            if whole else f"not every start escapes at {p:g}"
            for p, (each, whole) in found.items()
        ),
        all(whole and 1 < each.mean <= 1 / (1 - p) for p, (each, whole) in found.items()),
    )  # fmt: skip


def order(measured: Measured) -> Finding:
    """SGD, SSAM, SAM at each radius below the threshold."""
    words, good = [], []
    for p in free_products(measured.config):
        (sam, first), (ssam, second) = (ratio(measured, name, p / measured.config.strength) for name in UNNORMALISED)
        good.append(bool(second) and ssam.mean >= 1 and (not first or sam.mean > ssam.mean))
        words.append(f"{p:g}: 1 ≤ {ssam.mean:.2f}{_band(ssam, 2)} < {sam.mean if first else math.inf:.2f}")
    return Finding("SGD ≤ SSAM < SAM at every radius", "; ".join(words), all(good))


@statement
def trapped(measured: Measured, method: str, products: Sequence[float]) -> Finding:
    """No trajectory escapes past the threshold."""
    rows = [select(measured["escapes"], method=method, rho=p / measured.config.strength) for p in products]
    table = pd.concat(rows)
    escaped, nearer = int(table["hit"].notna().sum()), int((table["length"] < table["start"]).sum())
    farthest = plain_number(float(f"{(table['length'] / table['start']).max():.2g}"))
    return Finding(
        "no trajectory escapes, and each ends nearer to the saddle than it began",
        f"{escaped} of {len(table)} escaped ({percent(share(escaped, len(table)))}); {nearer} ended nearer (the "
        f"farthest at {farthest} of its start)",
        escaped == 0 and nearer == len(table),
    )


def regions(measured: Measured) -> Finding:
    """Who is trapped by the length of the start."""
    rows = select(measured["escapes"], method=NORMALISED)
    free, held = rows["rho"] < rows["descending"], rows["rho"] > rows["start"]
    wrong, decided = int(((free & rows["hit"].isna()) | (held & rows["hit"].notna())).sum()), int((free | held).sum())
    return Finding(
        "trapped where rho > ‖w‖, free where rho < ‖descending part of w‖, at the start",
        f"{decided - wrong} of {decided} trajectories of SAM and SSAM; {len(rows) - decided} lie between",
        wrong == 0 if decided else None,
        f"‖w‖ about {rows['start'].mean():.3f}, its descending part about {rows['descending'].mean():.3f}",
        "Not decided: every start lies between.",
    )


def normalised_order(measured: Measured) -> Finding:
    """SGD, SSAM, SAM at each radius where one of them escapes."""
    words, good = [], []
    for rho in measured.config.lengths:
        (sam, first), (ssam, second) = (ratio(measured, name, rho) for name in NORMALISED)
        if not (first or second):
            words.append(f"{rho:g}: neither escapes")
            continue
        good.append(bool(second) and ssam.mean >= 1 and (not first or sam.mean > ssam.mean))
        shown = [f"{x.mean:.2f}{_band(x, 2)}" if n else "trapped" for x, n in ((ssam, second), (sam, first))]
        words.append(f"{rho:g}: SSAM {shown[0]}, SAM {shown[1]}")
    return Finding(
        "SGD ≤ SSAM < SAM at every radius where one of them escapes", "; ".join(words), all(good) if good else None,
        open="Not decided: neither escapes at any radius.",
    )  # fmt: skip


def _band(found: Interval, digits: int) -> str:
    return f" ({found.low:.{digits}f} to {found.high:.{digits}f})" if math.isfinite(found.low) else ""
