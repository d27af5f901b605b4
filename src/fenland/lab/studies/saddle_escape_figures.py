"""The figures of the study `saddle-escape`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import METHODS, Line, Mark, Panel, draw_panels
from fenland.lab.studies.saddle_escape import NORMALISED, UNNORMALISED, Config, free_products, slowdown
from fenland.lab.study.base import Tables

if TYPE_CHECKING:
    pass


def loss(config: Config, tables: Tables, methods: tuple[str, ...], radii: list[float], name: str) -> Drawn:
    """Mean loss over seeds by epoch, one panel a radius."""
    means = tables["curves"].groupby(["method", "rho", "steps"], as_index=False)["loss"].mean()
    panels = []
    for rho in radii:
        shown = f"rho·m = {rho * config.strength:g}" if methods == UNNORMALISED else f"rho = {rho:g}"
        lines = []
        for method in ("SGD", *methods):
            at = 0.0 if method == "SGD" else rho
            rows = means[(means["method"] == method) & np.isclose(means["rho"], at)]
            lines.append(Line(method, rows["steps"] / config.steps_per_epoch, rows["loss"]))
        panels.append(Panel(lines, "epoch", shown))
    title = f"Loss, {name} ascent"
    last = means[means["steps"] == means["steps"].max()]
    ends = [
        f"{method} {row.loss:.3g} at rho {row.rho:.3g}"
        for method in methods
        for row in last[last["method"] == method].itertuples()
    ]
    return Drawn(
        name,
        title,
        f"Means over {len(config.seeds)} seeds. SGD's curve is the same in every panel.",
        f"{title}, by epoch, one panel a radius. At the end: {'; '.join(ends)}.",
        lambda canvas: draw_panels(canvas, title, panels, columns=2, height=135),
        METHODS,
    )


def times(config: Config, tables: Tables) -> Drawn:
    """Escape times against the radius, both ascents."""
    escapes = tables["escapes"]
    below = free_products(config)
    dense = np.linspace(0, max([*below, 0.5]), 60)
    panels = []
    for methods, places, scale, along, words in (
        (UNNORMALISED, below, 1 / config.strength, "rho·m", "unnormalised ascent; line: 1/(1 − rho·m)"),
        (NORMALISED, list(config.lengths), 1.0, "rho", "normalised ascent"),
    ):
        lines = []
        for method in methods:
            points = [(x, slowdown(escapes, method, x * scale)[0]) for x in places]
            points = [(x, found) for x, found in points if found.n == len(config.seeds)]
            y = [found.mean for _, found in points]
            low, high = ([getattr(found, side) for _, found in points] for side in ("low", "high"))
            lines.append(Line(method, [x for x, _ in points], y, low, high, kind="joined"))
        if methods == UNNORMALISED:
            lines.append(Line("USAM", dense, 1 / (1 - dense), kind="theory"))
        panels.append(Panel(lines, along, words, log_y=True, marks=(Mark(1.0, "SGD", "y"),)))
    title = "Steps to escape, as a multiple of SGD's"
    measured = "; ".join(f"{m} {_all(escapes, m, below, config)}" for m in UNNORMALISED)
    return Drawn(
        "times",
        title,
        "Means over seeds with 95 % intervals, from the same starts; radii at which a seed never escapes are left out.",
        f"{title}. By rho·m: {measured}.",
        lambda canvas: draw_panels(canvas, title, panels, height=170),
        METHODS,
    )


def _all(escapes: pd.DataFrame, method: str, below: list[float], config: Config) -> str:
    return ", ".join(f"{slowdown(escapes, method, p / config.strength)[0].mean:.2f} at {p:g}" for p in below)
