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

# (what, whose where no paper says it) by the table's rows.
SIZES = {
    "largest": "largest eigenvalue of the Hessian",
    "trace": "trace of the Hessian",
}
PAPER = Source("SSAM paper, abstract: flatter minima by Hessian analyses")
GOAL = ours("what sharpness-aware training is for (Foret et al. 2021)")
EQUAL = ours("near a fit the Hessian of cross-entropy shrinks with the loss, and at equal rho SSAM trains less far")
STABLE = (("ssam-u", "usam"), ("ssam", "sam"))
value = Quantity("value", table="spectrum")


def sizes(measured: Measured, what: str, **where: Any) -> pd.DataFrame:
    """One row a run: its largest eigenvalue or its trace."""
    rows = value.at(kind=what, **where).rows(measured)
    return rows[rows["rank"] <= 1]


def smaller(what: str, mine: str, theirs: str) -> Statement:
    """The ratio of two positive numbers, by its logarithm, for each network."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for model, part in by(sizes(measured, what, reference=True), "model"):
            means = " against ".join(_mean(part, name) for name in (mine, theirs))
            found[f"{model}: {{value}} times as much ({means})"] = ratio_of(
                gap(logarithms(part), "optimizer", mine, theirs)
            )
        return found

    return Contrast(measure, "{key}", sign=False) < 1


def _mean(part: pd.DataFrame, optimizer: str) -> str:
    found = interval(part[part["optimizer"] == optimizer]["value"])
    return f"{found.mean:.3g}" if found.n else "not measured"


def at_equal_loss(mine: str, theirs: str) -> Statement:
    """The ratio of the largest eigenvalues where one method, at some radius, fits the data as the other does."""

    def measure(measured: Measured) -> dict[str, Interval]:
        found = {}
        for model, part in by(sizes(measured, "largest"), "model"):
            of = {key: each for key, each in part.groupby(["optimizer", "seed"])}
            seeds = [seed for seed in part["seed"].unique() if {(mine, seed), (theirs, seed)} <= set(of)]
            apart = {seed: _apart(of[mine, seed], of[theirs, seed]) for seed in seeds}
            kept = [float(np.mean(each)) for each in apart.values() if each]
            points = sum(map(len, apart.values()))
            words = f" times as much ({points} points of equal loss)" if points else " (no points of equal loss)"
            found[f"{model}: {{value}}{words}"] = ratio_of(interval(kept))
        return found

    return Contrast(measure, "{key}", sign=False) < 1


def _apart(mine: pd.DataFrame, theirs: pd.DataFrame) -> list[float]:
    """Logarithms of mine over theirs at mine's losses, on the line through theirs; none beyond its ends."""
    if len(theirs) < 2 <= len(mine):
        return [-each for each in _apart(theirs, mine)]
    line = theirs.sort_values("train_loss")
    x, y = np.log(line["train_loss"].to_numpy()), np.log(line["value"].to_numpy())
    at, own = np.log(mine["train_loss"].to_numpy()), np.log(mine["value"].to_numpy())
    return [float(b - np.interp(a, x, y)) for a, b in zip(at, own, strict=True) if x[0] <= a <= x[-1]]


def claims(measured: Measured) -> Iterator[Claim]:
    """Everyone against the first, and renormalised methods against what they renormalise."""
    config = measured.config
    pairs = [(name, config.optimizers[0]) for name in config.optimizers[1:]]
    pairs += [pair for pair in STABLE if set(pair) <= set(config.optimizers) and pair[1] != config.optimizers[0]]
    for what, words in SIZES.items():
        for mine, theirs in pairs:
            models = sizes(measured, what)["model"]
            yield Claim(
                f"{title_of(mine)} ends with a smaller {words} than {title_of(theirs)}.",
                PAPER if mine.startswith("ssam") else GOAL, smaller(what, mine, theirs),
                "largest" if what != "trace" else f"trace_{models.iloc[0]}" if len(models) else "",
                expected="a ratio below 1, for each network", notes=("Paired over seeds, by logarithms.", losses),
            )  # fmt: skip
    for mine, theirs in pairs:
        yield Claim(
            f"At equal train loss {title_of(mine)} ends with a smaller {SIZES['largest']} than {title_of(theirs)}.",
            EQUAL, at_equal_loss(mine, theirs), "equal_loss", expected="a ratio below 1, for each network",
            notes=f"Over rho = {', '.join(map('{:g}'.format, config.rhos))}: where a loss of the one lies between two "
            "of the other, whose eigenvalue there is interpolated by logarithms; mean over these points, interval "
            "over seeds. Open where there are none.",
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
