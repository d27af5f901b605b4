"""The figures of the study `quadratic`."""

from __future__ import annotations

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel, draw_panels
from fenland.lab.studies.quadratic import UNNORMALISED, Config, at_radius, critical_lr, radii_of, rows_of
from fenland.lab.study.base import Tables
from fenland.theory import (
    convergence,
    cycle_amplitude,
    displacement,
    gamma_bounds,
    gamma_normalized,
)


def rates_drawn(config: Config, tables: Tables) -> Drawn:
    """Factor a step against learning rate, one panel a method."""
    panels = []
    methods = [(method, rho) for method in (*UNNORMALISED, "SSAM") for rho in radii_of(config, method)[-1:]]
    for method, rho in [("SGD", 0.0), *methods]:
        rows = rows_of(tables["rates"], method, rho)
        rows = rows[rows["rate"] < 1.3]
        law = [convergence(config.eigenvalues, lr, rho, method) for lr in rows["lr"]]
        lines = [Line(method, rows["lr"], law, kind="theory"), Line(method, rows["lr"], rows["rate"], kind="dots")]
        panels.append(Panel(lines, "learning rate", f"{method}{at_radius(rho)}", marks=(Mark(1.0, "", "y"),),
                            y_limits=(0.85, 1.2), x_limits=(0, 1.1 * 2 / config.steepest)))  # fmt: skip
    title = "Factor by which ‖w‖ changes a step"
    ends = [f"{m}{at_radius(r)} shrinks until {critical_lr(rows_of(tables['rates'], m, r)):.3f}" for m, r in methods]
    return Drawn(
        "rates",
        title,
        "Points: measured, median over starts. Lines: theory. Below 1 (dotted) the trajectory converges.",
        f"{title}, by learning rate, a panel a method. {'; '.join(ends)}.",
        lambda canvas: draw_panels(canvas, title, panels, columns=2, height=150),
        METHODS,
    )


def cycle_drawn(config: Config, tables: Tables) -> Drawn:
    """SAM's final distance in one mode."""
    labels = tuple(f"rho {rho:g}" for rho in config.lengths)
    lines = []
    for rho, label in zip(config.lengths, labels, strict=True):
        rows = tables["cycles"][tables["cycles"]["rho"] == rho]
        law = [cycle_amplitude(config.steepest, lr, rho) for lr in rows["lr"]]
        lines += [Line(label, rows["lr"], law, kind="theory"), Line(label, rows["lr"], rows["distance"], kind="dots")]
    title = "Final distance of normalised SAM in one mode"
    return Drawn(
        "cycle",
        title,
        "Points: measured, median over starts. Lines: eta·l·rho/(2 − eta·l).",
        f"{title} by learning rate, from {tables['cycles']['distance'].min():.2g} to "
        f"{tables['cycles']['distance'].max():.2g}.",
        lambda canvas: draw_panels(canvas, title, [Panel(lines, "learning rate", log_y=True)]),
        labels,
    )


def gamma_drawn(config: Config, tables: Tables) -> Drawn:
    """Gamma along trajectories, for both ascents."""
    table, rho, length = tables["gamma"], config.radii[-1], config.lengths[-1]
    low, high = gamma_bounds(config.eigenvalues, rho)
    first = [_gamma_line(table, method, rho) for method in UNNORMALISED]
    marks = (Mark(low, "lower bound", "y"), Mark(high, "upper bound", "y"))
    panels = [
        Panel(first, "steps", f"unnormalised, rho = {rho:g}", marks=marks, y_limits=(0, 1.15)),
        Panel([_gamma_line(table, "SSAM", length)], "steps", f"normalised, one mode, rho = {length:g}", log_y=True),
    ]
    last = table[table["steps"] == table["steps"].max()]
    words = "; ".join(f"{row.method} {row.gamma:.3g} at rho {row.rho:g}" for row in last.itertuples())
    near = gamma_normalized(1e-3, length)
    return Drawn(
        "gamma",
        "Gamma = ‖g‖/‖h‖",
        "Medians, bands from the least to the largest of all starts. Unnormalised: within its bounds however small ‖g‖ "
        f"is. Normalised: |w|/(|w| + rho), which is {near:.2g} at |w| = 0.001, and vanishes at the minimum.",
        f"Gamma by steps. After {int(last['steps'].max())} steps: {words}.",
        lambda canvas: draw_panels(canvas, "Gamma = ‖g‖/‖h‖", panels),
        METHODS,
    )


def _gamma_line(table: pd.DataFrame, method: str, rho: float) -> Line:
    rows = table[(table["method"] == method) & (table["rho"] == rho)]
    return Line(method, rows["steps"], rows["gamma"], rows["low"], rows["high"])


def noise_drawn(config: Config, tables: Tables) -> Drawn:
    """Mean of w^2 under noise, by steps."""
    table = tables["noise"][tables["noise"]["noise"] == "shared"]
    radii = (0.0, *config.radii)
    labels = tuple("SGD" if rho == 0 else f"USAM, rho {rho:g}" for rho in radii)
    lines = []
    for rho, label in zip(radii, labels, strict=True):
        rows = table[table["rho"] == rho]
        law = [displacement(1.0, config.noise_lr, rho, config.noise, int(t)) for t in rows["steps"]]
        lines += [Line(label, rows["steps"], law, kind="theory"), Line(label, rows["steps"], rows["mean"], kind="dots")]
    title = "Mean of w² under gradient noise"
    last = table[table["steps"] == table["steps"].max()]
    words = ", ".join(f"{row.mean:.4f} at rho {row.rho:g}" for row in last.itertuples())
    return Drawn(
        "noise",
        title,
        f"Points: mean of {config.paths} paths from the minimum, one mini-batch in both gradients. Lines: theory.",
        f"{title}, by steps. At the end: {words}.",
        lambda canvas: draw_panels(canvas, title, [Panel(lines, "steps", whole=True)]),
        labels,
    )
