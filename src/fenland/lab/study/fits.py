"""Drift and diffusion read off displacement curves, and what they say about the noise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.rows import select

KEY = ["source", "method", "rho", "batch", "curvature"]


def fits(curves: pd.DataFrame, lr: float) -> pd.DataFrame:
    """Each group's curve as linear and quadratic coefficient of MSD(t), t = eta * steps.

    One mode's displacement is L * (1 - exp(-2*a*t)) / (2*a) = L*t - L*a*t^2 + ...: L and a are fitted by least squares
    on MSD / t, which weighs all times about alike; ``linear`` is L and ``quadratic`` is -L*a.
    """
    rows = []
    for key, curve in curves[curves["step"] > 0].groupby([*KEY, "group"], sort=False):
        t = curve["step"].to_numpy(float) * lr
        linear, drift = _fit(t, curve["msd"].to_numpy(float) / t)
        rows.append([*key, linear, -linear * drift, drift])
    return pd.DataFrame(rows, columns=[*KEY, "group", "linear", "quadratic", "drift"])


def _fit(t: np.ndarray, rate: np.ndarray) -> tuple[float, float]:
    """L and a of rate(t) = L * (1 - exp(-2*a*t)) / (2*a*t): a by a bounded search, L the best for each a."""
    from scipy.optimize import minimize_scalar

    def best(drift: float) -> tuple[float, float]:
        x = 2 * drift * t
        shape = -np.expm1(-x) / x if drift else np.ones_like(t)
        linear = float(shape @ rate / (shape @ shape))
        return linear, float(np.square(rate - linear * shape).sum())

    # Nothing that is fitted here grows or decays by more than exp(8) within the time.
    bound = 4 / float(t.max())
    found = minimize_scalar(lambda a: best(a)[1], bounds=(-bound, bound), method="bounded", options={"xatol": 1e-9})
    return best(float(found.x))[0], float(found.x)


def exponent(fitted: pd.DataFrame, source: str, rho: float, batch: int, curvature: float, column: str) -> Interval:
    """k of SAM's coefficient = SGD's * (1 + rho*l)^k, group by group on the same noise, with its interval.

    ``linear`` gives the power of (1 + rho*l) in the noise, ``drift`` that in the drift, ``quadratic`` their sum.
    """
    sam, sgd = (_group(fitted, source, rho, batch, curvature, column, r) for r in (rho, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval(np.log(sam / sgd) / math.log(1 + rho * curvature))


def gap(fitted: pd.DataFrame, source: str, rho: float, batch: int, curvature: float, lr: float) -> Interval:
    """(SGD's - SAM's) coefficient of t^2 in units of eta * |l|^3 * rho / B: the published value is 2."""
    sam, sgd = (_group(fitted, source, rho, batch, curvature, "quadratic", r) for r in (rho, 0.0))
    return interval((sgd - sam) * batch / (lr * abs(curvature) ** 3 * rho))


def _group(
    fitted: pd.DataFrame, source: str, rho: float, batch: int, curvature: float, column: str, wanted: float
) -> np.ndarray:
    method = "SGD" if wanted == 0 else "USAM"
    # Noise at the ascent point alone, or drawn twice, is the same for SGD, which has one gradient a step.
    base = source if wanted or source.startswith("optimizer") else "shared"
    rows = select(fitted, source=base, method=method, rho=wanted, batch=batch, curvature=curvature)
    return rows.sort_values("group")[column].to_numpy(float)
