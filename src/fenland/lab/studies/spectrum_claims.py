"""The claims of the study `spectrum`: who ends flatter, at one radius and at equal train loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study import Claim, Contrast, Finding, Measured, Quantity, Source, Statement, ours
from fenland.lab.study.quantities import gap, logarithms, ratio_of
from fenland.lab.study.words import by

# By the table's rows.
SIZES = {"largest": "largest eigenvalue", "trace": "trace"}
PAPER = Source("SSAM paper, abstract: flatter minima by Hessian analyses")
GOAL = ours("what sharpness-aware training is for (Foret et al. 2021)")
EQUAL = ours("near a fit the Hessian of cross-entropy shrinks with the loss, and at equal rho SSAM trains less far")
STABLE = (("ssam-u", "usam"), ("ssam", "sam"))
value = Quantity("value", table="spectrum")


def sizes(measured: Measured, what: str, **where: Any) -> pd.DataFrame:
    """One row a run: its largest eigenvalue or its trace."""
    rows = value.at(kind=what, **where).rows(measured)
    return rows[rows["rank"] <= 1]


def flatter(mine: str, theirs: str) -> Statement:
    """The ratios of largest eigenvalues and of traces, by their logarithms, for each network."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for what, name in SIZES.items():
            for model, part in by(sizes(measured, what, reference=True), "model"):
                means = " against ".join(_mean(part, each) for each in (mine, theirs))
                found[f"{model}, {name}: {{value}} times as large ({means})"] = ratio_of(
                    gap(logarithms(part), "optimizer", mine, theirs)
                )
        return found

    return Contrast(measure, "{key}", sign=False) < 1


def _mean(part: pd.DataFrame, optimizer: str) -> str:
    found = interval(part[part["optimizer"] == optimizer]["value"])
    return f"{found.mean:.3g}" if found.n else "not measured"


def at_equal_loss(mine: str, theirs: str) -> Statement:
    """The ratio of the largest eigenvalues where one method, trained longer or shorter, fits as the other does."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for model, part in by(sizes(measured, "largest"), "model"):
            for rho in measured.config.rhos:
                rows = part[part["rho"].isna() | (part["rho"] == rho)]
                of = {key: each for key, each in rows.groupby(["optimizer", "seed"])}
                seeds = [seed for seed in rows["seed"].unique() if {(mine, seed), (theirs, seed)} <= set(of)]
                apart = [points for seed in seeds if (points := _apart(of[mine, seed], of[theirs, seed]))]
                count = sum(map(len, apart))
                words = f" times as large ({count} points of equal loss)" if count else " (no points of equal loss)"
                means = interval([float(np.mean(each)) for each in apart])
                found[f"{model}, rho = {rho:g}: {{value}}{words}"] = ratio_of(means)
        return found

    return Contrast(measure, "{key}", sign=False) < 1


def _apart(mine: pd.DataFrame, theirs: pd.DataFrame) -> list[float]:
    """Logarithms of mine over theirs at each one's losses, on the line through the other; none beyond its ends.

    Two lines whose losses overlap at all have such a point: an end of the overlap is an end of one of them.
    """
    return [*_above(mine, theirs), *(-each for each in _above(theirs, mine))]


def _above(own: pd.DataFrame, other: pd.DataFrame) -> list[float]:
    line = other.sort_values("train_loss")
    x, y = np.log(line["train_loss"].to_numpy()), np.log(line["value"].to_numpy())
    at, height = np.log(own["train_loss"].to_numpy()), np.log(own["value"].to_numpy())
    return [float(b - np.interp(a, x, y)) for a, b in zip(at, height, strict=True) if x[0] <= a <= x[-1]]


def claims(measured: Measured) -> Iterator[Claim]:
    """Everyone against the first, and renormalised methods against what they renormalise."""
    config = measured.config
    pairs = [(name, config.optimizers[0]) for name in config.optimizers[1:]]
    pairs += [pair for pair in STABLE if set(pair) <= set(config.optimizers) and pair[1] != config.optimizers[0]]
    for mine, theirs in pairs:
        published = mine.startswith("ssam")
        yield Claim(
            f"{title_of(mine)} ends in flatter minima than {title_of(theirs)}, by the largest eigenvalue of the "
            "Hessian and by its trace.", PAPER if published else GOAL, flatter(mine, theirs), "largest",
            "paper" if published else "", "ratios below 1, for each network",
            ("Paired over seeds, by logarithms.", losses),
        )  # fmt: skip
    lengths = ", ".join(map(str, config.lengths))
    for mine, theirs in pairs:
        yield Claim(
            f"At equal train loss {title_of(mine)} has a smaller largest eigenvalue of the Hessian than "
            f"{title_of(theirs)}.",
            EQUAL, at_equal_loss(mine, theirs), "equal_loss", expected="a ratio below 1, for each network and radius",
            notes=f"Runs of {lengths} epochs make a line; where a loss of the one lies between two of the other, whose "
            "eigenvalue there is interpolated by logarithms. Mean over these points, interval over seeds; open where "
            "there are none.",
        )  # fmt: skip
    yield Claim(
        "Every eigenvalue is one: its residual |Hv − lv| is small against it.",
        Source("ours, a check of the measurement", ours=True), residuals, "largest",
    )  # fmt: skip


def losses(measured: Measured) -> str:
    """How far each method fitted the data: what curvature of the cross-entropy depends on by itself."""
    parts = []
    for model, rows in by(sizes(measured, "largest", reference=True), "model"):
        means = rows.groupby("optimizer", sort=False)["train_loss"].mean()
        parts.append(f"{model} " + ", ".join(f"{title_of(str(name))} {mean:.2g}" for name, mean in means.items()))
    return f"Train losses: {'; '.join(parts)}." if parts else ""


def residuals(measured: Measured) -> Finding:
    """As `curvature.extreme_eigenvalues` promises them: of 1 % of the largest where an eigenvalue is smaller."""
    rows, tol, share = value.at(kind="largest").rows(measured), measured.config.tol, 0.0
    for _, part in rows.groupby("run"):
        size = part["value"].abs()
        share = max(share, float((part["error"] / np.maximum(size, 0.01 * size.max())).max()))
    worst = float(rows["error"].max()) if len(rows) else float("nan")
    return Finding(
        f"residuals of at most {tol:g} of the eigenvalue (of 1 % of the largest, for smaller ones)",
        f"at most {share:.2g} of it, in {len(rows)} eigenpairs; {worst:.2g} in absolute terms",
        bool(share <= tol) if len(rows) else None, open="Not decided: no run finished.",
    )  # fmt: skip
