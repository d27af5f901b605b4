"""What is claimed of quadratics: every closed form beside its measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from scipy.special import ndtri

from fenland.lab.study import Claim, Finding, Measured, Source
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import select
from fenland.lab.study.theory import at_radius, near
from fenland.theory import convergence, cycle_amplitude, displacement, gamma_bounds, stationary_displacement

UNNORMALISED = ("USAM", "SSAM-U")
THEORY = Source("theory (fenland.theory)", ours=True)
FROM_THEORY = Source("ours, from theory", ours=True)
PAPER = Source("Tan et al. 2025 (SSAM), convergence on quadratics; theory (fenland.theory)")
LAWS = {
    "SGD": "SGD converges below 2/l",
    "USAM": "Unnormalised SAM converges below 2/(l(1 + rho·l))",
    "SSAM-U": "SSAM on the unnormalised ascent converges below SGD's 2/l",
    "SSAM": "SSAM on the normalised ascent converges below SGD's 2/l",
}
NOISES = {
    "shared": "one mini-batch in both gradients",
    "independent": "a mini-batch for each gradient",
    "descent": "noise in the second gradient alone",
}


def rows_of(measured: Measured, method: str, rho: float) -> pd.DataFrame:
    """The rates of a method and radius, by learning rate."""
    return select(measured["rates"], method=method, rho=rho).sort_values("lr")


def critical_lr(rows: pd.DataFrame) -> float:
    """The middle between the last learning rate at which every start shrinks and the next; NaN if they all do."""
    shrinks, lrs = (rows["high"] < 1).tolist(), rows["lr"].tolist()
    first = next((k for k, good in enumerate(shrinks) if not good), None)
    return math.nan if not first else (lrs[first - 1] + lrs[first]) / 2


def claims(measured: Measured) -> Iterator[Claim]:
    """Each closed form beside its measurement."""
    config = measured.config
    for method, law in LAWS.items():
        limits = {rho: config.limit(method, rho) for rho in config.radii_of(method)}
        found = {rho: critical_lr(rows_of(measured, method, rho)) for rho in limits}
        yield Claim(
            f"{law} (l = {config.steepest:g}, the largest eigenvalue)", PAPER if method == "SSAM-U" else THEORY,
            near(limits, found, config.step, f", each within {config.step:.3g}", ".4f", "; "), "rates",
            notes=f"Learning rate up to which all {config.starts} starts shrink, half way between two of the grid.",
        )  # fmt: skip
    for method in LAWS:
        derived = ", derived for the balance of two modes" if "SSAM" in method else ""
        yield Claim(
            f"{method}'s factor a step is that of theory at every stable learning rate",
            Source(f"fenland.theory.convergence{derived}", ours=True), rate(method), "rates",
            notes="Median over starts, over the last half of the run.",
        )  # fmt: skip
    yield Claim(
        "Normalised SAM ends at the distance eta·l·rho/(2 − eta·l) from the minimum of one mode", THEORY, cycle,
        "cycle", notes=f"l = {config.steepest:g}, eta·l up to 1.9",
    )  # fmt: skip
    yield Claim(
        "On the unnormalised ascent gamma stays in [1/(1 + rho·l_max), 1/(1 + rho·l_min)]", THEORY, bounded, "gamma",
        notes="All points of all trajectories of USAM and SSAM-U.",
    )  # fmt: skip
    for where, words in NOISES.items():
        yield Claim(
            f"With {words} the noise floor of SAM is eta²σ²c²/(1 − q²)",
            Source("fenland.theory.displacement", ours=True), floor(where), "noise",
            notes=f"Mean of w² of {config.paths} paths after {config.noise_steps} steps, l = 1, rho = 0 is SGD.",
        )  # fmt: skip
    sentence = "At a minimum SAM's noise floor lies above SGD's, one mini-batch in both gradients"
    yield Claim(sentence, FROM_THEORY, noisier, "noise")


@statement
def rate(measured: Measured, method: str) -> Finding:
    """The factor a step against `theory.convergence`, at every stable learning rate."""
    config, gaps = measured.config, {}
    for rho in config.radii_of(method):
        rows = rows_of(measured, method, rho)
        # One step of the grid from the limit: closer, shrinking modes have not died away within the run.
        rows = rows[rows["lr"] < config.limit(method, rho) - config.step]
        law = [convergence(config.eigenvalues, lr, rho, method) for lr in rows["lr"]]
        gaps[rho] = float((rows["rate"] - law).abs().max())
    words = ", ".join(f"{gap:.2g}{at_radius(rho)}" for rho, gap in gaps.items())
    return Finding("largest difference at most 0.01", words, max(0.0, *gaps.values()) <= 0.01)


def cycle(measured: Measured) -> Finding:
    """Every start's final distance over the predicted one."""
    rows = measured["cycles"]
    law = [cycle_amplitude(measured.config.steepest, lr, rho) for rho, lr in rows[["rho", "lr"]].to_numpy()]
    ratio = pd.concat([rows["low"] / law, rows["high"] / law])
    return Finding(
        "measured over predicted within 0.99 to 1.01, for every start",
        f"from {ratio.min():.4f} to {ratio.max():.4f} over {len(rows)} pairs of learning rate and radius",
        bool((abs(ratio - 1) <= 0.01).all()),
    )


def bounded(measured: Measured) -> Finding:
    """Gamma at all points against its bounds."""
    config, seen = measured.config, {}
    laws = {rho: gamma_bounds(config.eigenvalues, rho) for rho in config.radii}
    for rho in laws:
        rows = select(measured["gamma"], method=UNNORMALISED, rho=rho)
        seen[rho] = float(rows["low"].min()), float(rows["high"].max())
    expected, found = (
        "; ".join(f"{low:.3f} to {high:.3f} at rho {rho:g}" for rho, (low, high) in each.items())
        for each in (laws, seen)
    )
    holds = all(laws[r][0] - 1e-9 <= seen[r][0] and seen[r][1] <= laws[r][1] + 1e-9 for r in laws)
    return Finding(expected, found, holds)


@statement
def floor(measured: Measured, where: Any) -> Finding:
    """E[w^2] at the last step against the closed form, all radii together."""
    config, rows = measured.config, at_end(measured, where)
    words, good, z = [], [], float(ndtri(1 - 0.05 / 2 / len(rows)))
    for rho, steps, mean, error in rows[["rho", "steps", "mean", "error"]].to_numpy():
        law = displacement(1.0, config.noise_lr, float(rho), config.noise, int(steps), where)
        good.append(bool(abs(mean - law) <= z * error))
        words.append(f"{mean:.4f} ± {1.96 * error:.4f} for {law:.4f} at rho {rho:g}")
    return Finding("within the 95 % interval over paths, all radii together", ", ".join(words), all(good))


def at_end(measured: Measured, where: str) -> pd.DataFrame:
    """The noise floors at the last step."""
    return select(measured["noise"], noise=where, steps=measured["noise"]["steps"].max())


def noisier(measured: Measured) -> Finding:
    """With one mini-batch in both gradients SAM is noisier than SGD at a minimum."""
    config, rows = measured.config, at_end(measured, "shared").set_index("rho")
    mean, relative, words, good = rows["mean"], rows["error"] / rows["mean"], [], []
    for rho in config.radii:
        ratio = float(mean[rho] / mean[0.0])
        error = 1.96 * ratio * math.hypot(float(relative[rho]), float(relative[0.0]))
        good.append(ratio - error > 1)
        words.append(f"{ratio:.3f} ({ratio - error:.3f} to {ratio + error:.3f}) at rho {rho:g}")
    laws = [stationary_displacement(1.0, config.noise_lr, rho, config.noise) for rho in (0.0, *config.radii)]
    expected = ", ".join(f"{law / laws[0]:.3f} at rho {rho:g}" for rho, law in zip(config.radii, laws[1:], strict=True))
    return Finding(f"{expected} times SGD's, above 1", ", ".join(words), all(good))
