"""What is claimed of learning rates on the quartic, and the theory of SAM's cycle there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from fenland.lab.study import Claim, Finding, Measured, Source
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import select
from fenland.lab.study.theory import near
from fenland.theory.quadratic import cycle_amplitude, stable_lr

CURVATURE = 2 + math.sqrt(2)  # the largest Hessian eigenvalue at both minima
UNNORMALISED, NORMALISED = ("USAM", "SSAM-U"), ("SAM", "SSAM")
PAPER = Source("Tan et al. 2025 (SSAM), Fig. 2")
# Where the quartic is near enough to its expansion: rho + amplitude, share of the limit 2/l, shift over amplitude.
NEAR, BELOW, SHIFT = 0.15, 0.85, 0.5
SPAN = (0.1, 0.5)  # learning rates at which the normalised ascent is judged
SMALL_RADIUS = 0.1  # beside 1.41, the distance of the saddle from the minima; a larger one is drawn to the saddle
CYCLES = Source("theory for quadratics and its next order, ours", ours=True)
# Sentence, expected, note, by the column that is measured.
CYCLE = {
    "distance": (
        "Normalised SAM ends on one of the two points of a cycle whose middle the third derivative moves away from the "
        "minimum", "measured over the nearer of the two distances that second order gives, within 0.9 to 1.1",
        "Median over starts. The middle is moved by about half of (rho + amplitude)²·|H⁻¹T[u, u]|, far more than rho² "
        "near the limit.",
    ),
    "amplitude": (
        f"Up to {BELOW:g} of the limit 2/l normalised SAM ends on a cycle of amplitude eta·l·rho/(2 − eta·l), wherever "
        "its middle lies",
        "measured over predicted within 0.9 to 1.1",
        "Half of the distance between two successive points, median over starts.",
    ),
}  # fmt: skip
LAWS = {
    "SGD": ("SGD succeeds up to 2/l", Source("theory, as in Fig. 2", ours=True)),
    "USAM": ("Unnormalised SAM succeeds up to 2/(l(1 + rho·l)) only", Source("theory, for Fig. 2", ours=True)),
    "SSAM-U": ("SSAM keeps SGD's limit 2/l at every radius", Source(f"{PAPER}, and theory")),
}


def rows_of(measured: Measured, method: str, rho: float) -> pd.DataFrame:
    """The rows of a method and radius, by learning rate."""
    return select(measured["rates"], method=method, rho=rho).sort_values("lr")


def critical_lr(rows: pd.DataFrame) -> float:
    """The middle between the last learning rate with a success and the next; NaN where success never ends or begins."""
    lrs, some = rows["lr"].to_numpy(float), rows["successes"].to_numpy() > 0
    if not some.any() or some[-1]:
        return math.nan
    last = int(np.flatnonzero(some)[-1])
    return float(lrs[last] + lrs[last + 1]) / 2


def limits(measured: Measured, method: str, radii: tuple[float, ...]) -> dict[float, float]:
    """The critical learning rate of each radius."""
    return {rho: critical_lr(rows_of(measured, method, rho)) for rho in radii}


def terms(measured: Measured) -> str:
    """On what terms success is counted."""
    c = measured.config
    return (
        f"{c.starts} starts a point in the box ± {c.box:g}, {c.steps} steps, success within {c.tolerance:g} of a "
        "minimum."
    )


def claims(measured: Measured) -> Iterator[Claim]:
    """Critical learning rates against theory, and what the normalised ascent does instead."""
    config = measured.config
    for method, radii in (("SGD", (0.0,)), *((m, config.radii) for m in UNNORMALISED)):
        sentence, source = LAWS[method]
        law = {rho: stable_lr(CURVATURE, rho, method) for rho in radii}
        if radii:
            yield Claim(
                f"{sentence} (l = 3.414)", source, near(
                    law, limits(measured, method, radii), config.grid, f"{', each' * (len(law) > 1)} ± {config.grid:g}"
                ),
                "unnormalised", notes=(
                    f"Critical learning rate, half way between two of the grid: ± {config.grid / 2:g}.", terms,
                ),
            )  # fmt: skip
    for pair, radii, ascent in (
        (UNNORMALISED, config.radii, "unnormalised"),
        (NORMALISED, config.lengths, "normalised"),
    ):
        if radii:
            sentence = f"SSAM succeeds at larger learning rates than SAM ({ascent} ascent)"
            yield Claim(sentence, PAPER, _wider(pair, radii), ascent, notes=terms)
    rows = cycles(measured)
    near_ones = rows["theory"] + rows["rho"] <= NEAR
    for column, (sentence, expected, note) in CYCLE.items():
        inside = near_ones & (rows["share"] <= BELOW) & ((rows["shift"] <= SHIFT) | (column == "amplitude"))
        if inside.any():
            found = _of_cycle(rows[inside], rows[near_ones & ~inside], column)
            yield Claim(sentence, CYCLES, found, column, expected=expected, notes=note)
    if config.lengths:
        yield Claim(
            f"With the normalised ascent, rho up to {SMALL_RADIUS:g}, SAM never settles within the tolerance, and SSAM "
            "mostly does", Source("theory (fenland.theory), ours", ours=True), _settles, "normalised", notes=terms,
        )  # fmt: skip


@statement
def _wider(measured: Measured, pair: tuple[str, str], radii: tuple[float, ...]) -> Finding:
    """The paper's message: SSAM can be trained at learning rates where SAM cannot."""
    sam, ssam = (limits(measured, method, radii) for method in pair)
    words = ", ".join(f"{_shown(ssam[rho])} against {_shown(sam[rho])} at rho {rho:g}" for rho in radii)
    # SAM that never succeeds has no limit at all: every one of SSAM's is above it.
    least = measured.config.grid / 2
    holds = all(ssam[rho] > sam[rho] + least or (math.isnan(sam[rho]) and ssam[rho] > 0) for rho in radii)
    return Finding("a larger critical learning rate at every radius", words, holds)


def _shown(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def cycle_points(lr: float, rho: float) -> tuple[float, float, float]:
    """Shift of the cycle's middle, and the distances of its nearer and farther point from a minimum, to second order.

    SAM steps between w* + delta ± a*u, u the direction of l = 3.414. That the mean of the two gradients at the ascent
    points vanishes says, with the third derivative T[u, u] = (6*u1^2, 0), s = 0.586 the other eigenvalue, v its
    direction: l*delta_u = -(T.u)/2*(a + rho)^2, and s*delta_v*(1 + s*rho/(l*a)) = -(T.v)/2*((a + rho)^2 + s*rho*a/l);
    the terms with s*rho come from the gradients at w, which are not opposite.
    """
    (slow, fast), axes = np.linalg.eigh(np.array([[3.0, -1.0], [-1.0, 1.0]]))
    a = cycle_amplitude(float(fast), lr, rho)
    third = 6 * axes[0, 1] ** 2 * axes[0]  # T.v and T.u
    mean = (a + rho) ** 2
    along = -third[1] * mean / (2 * fast)
    across = -third[0] * (mean + slow * rho * a / fast) / (2 * slow * (1 + slow * rho / (fast * a)))
    near_one, far_one = sorted((math.hypot(along + a, across), math.hypot(along - a, across)))
    return math.hypot(along, across), near_one, far_one


def cycles(measured: Measured) -> pd.DataFrame:
    """``rho, lr, distance, amplitude, theory, share, shift, near, far`` of normalised SAM below SGD's limit."""
    table, steps = measured["rates"], measured.config.steps
    below = table[(table["method"] == "SAM") & (table["lr"] < 0.99 * stable_lr(CURVATURE, method="SGD"))]
    # Where the slow mode (l = 0.586) has not settled yet, the distance is not the cycle's.
    settled = below[(1 - below["lr"] * (4 - CURVATURE)).abs() ** steps < 0.01 * below["rho"]]
    pairs = [(float(lr), float(rho)) for lr, rho in settled[["lr", "rho"]].to_numpy()]
    found: pd.DataFrame = settled[["rho", "lr", "distance", "amplitude"]].assign(
        theory=[cycle_amplitude(CURVATURE, lr, rho) for lr, rho in pairs], share=settled["lr"] * CURVATURE / 2,
    )  # fmt: skip
    found[["shift", "near", "far"]] = np.array([cycle_points(*pair) for pair in pairs]).reshape(-1, 3)
    found["shift"] /= found["theory"]
    return found


@statement
def _of_cycle(measured: Measured, rows: pd.DataFrame, outside: pd.DataFrame, column: str) -> Finding:
    """SAM's final distance, or half of its last step, over theory's, where its expansion holds and beyond."""

    def ratio(of: pd.DataFrame) -> pd.Series:
        if column == "amplitude":
            return of["amplitude"] / of["theory"]
        near_one, far_one = of["distance"] / of["near"], of["distance"] / of["far"]
        return near_one.where(near_one.map(math.log).abs() < far_one.map(math.log).abs(), far_one)

    found = ratio(rows)
    words = ", ".join(
        f"{low:.2f} to {high:.2f} at rho {rho:g}"
        for rho, low, high in found.groupby(rows["rho"]).agg(["min", "max"]).itertuples()
    )
    also = f", the middle moved by at most {SHIFT:g} of the amplitude" if column == "distance" else ""
    note = (
        f"{len(rows)} pairs of learning rate and radius with rho + amplitude at most {NEAR:g} and learning rates up to "
        f"{BELOW:g} of 2/l{also}: bounds set after the first results."
    )
    if len(outside):
        beyond = ratio(outside)
        pairs = f"{len(beyond)} pairs" if len(beyond) > 1 else "1 pair"
        note += f" In {pairs} beyond, up to the limit, it is {beyond.min():.2f} to {beyond.max():.2f}."
    return Finding("", f"median {found.median():.3f}; {words}", bool((abs(found - 1) <= 0.1).all()), note)


def _settles(measured: Measured) -> Finding:
    """Normalised SAM never comes within a small tolerance, normalised SSAM does."""
    table, config, best = measured["rates"], measured.config, {}
    small = [rho for rho in config.lengths if rho <= SMALL_RADIUS]
    for method in NORMALISED:
        rows = table[(table["method"] == method) & table["lr"].between(*SPAN)]
        best[method] = (rows["successes"] / rows["starts"]).groupby(rows["rho"]).agg(["min", "max"])
    sam, ssam = best["SAM"]["max"], best["SSAM"]["min"]
    words = ", ".join(
        f"rho {rho:g}: SAM at most {100 * sam[rho]:.1f} %, SSAM at least {100 * ssam[rho]:.1f} %"
        for rho in config.lengths
    )
    smallest = min(cycle_amplitude(CURVATURE, SPAN[0], rho) for rho in config.lengths)
    rows = table[(table["method"] == "SSAM") & table["lr"].between(*SPAN)]
    held = 100 * float(rows["held"].sum()) / max(int((rows["starts"] - rows["successes"]).sum()), 1)
    return Finding(
        f"success of SAM below 1 %, of SSAM above 50 %, for rho up to {SMALL_RADIUS:g} and "
        f"learning rates from {SPAN[0]:g} to {SPAN[1]:g}", words,
        bool(sam[small].max() < 0.01 and ssam[small].min() > 0.5) if small and smallest > config.tolerance else None,
        f"Of the starts that SSAM loses there, {held:.0f} % are held at the saddle, to which ||g|| < rho·m draws both "
        "methods; the others are at learning rates too large for their radius.",
        f"Not decided: SAM's smallest cycle, {smallest:.2g}, is within the tolerance." if small else "No such radius.",
    )  # fmt: skip
