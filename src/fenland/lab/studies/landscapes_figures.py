"""Figures of the study `landscapes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Mark, Panel, draw_contours, draw_panels
from fenland.lab.figures.style import SMALL, Canvas, blanks
from fenland.lab.studies.landscapes_designs import Hyperbola, TwoWells, valley
from fenland.lab.studies.landscapes_verdicts import title
from fenland.lab.study.base import Tables
from fenland.lab.study.shares import share

if TYPE_CHECKING:
    from fenland.lab.studies.landscapes import LandscapesConfig

LENGTH = "mean length of e over the starts"
MANIFOLD_WORDS = {"sphere": "sphere", "stiefel": "Stiefel"}


def draw(config: LandscapesConfig, tables: Tables) -> list[Drawn]:
    """Shares against length, flat and curved; curvature on the curve; the flat designs themselves."""
    ends = tables["ends"]
    flat = [d for d in ends["design"].unique() if str(d).startswith("valley")]
    return [
        _shares(ends, flat, "shares", "Share that reaches the flatter of two wells"),
        _shares(ends, list(MANIFOLD_WORDS), "manifolds", "Share that reaches the flatter well, on manifolds"),
        _curvature(ends),
        _designs(config),
    ]


def _shares(ends: pd.DataFrame, designs: list[str], name: str, heading: str) -> Drawn:
    panels, words, labels = [], [], []
    for design in designs:
        rows = ends[ends["design"] == design]
        lines, marks = [], []
        for method, part in rows.groupby("method", sort=False):
            found = {x: share(int(c["score"].sum()), len(c)) for x, c in part.groupby("length")}
            words.append(f"{design}, {title(str(method))}: " + ", ".join(f"{x.mean:.3f}" for x in found.values()))
            if method == "SGD":
                marks.append(Mark(found[0.0].mean, "descent", "y"))
                continue
            mean, low, high = ([getattr(x, key) for x in found.values()] for key in ("mean", "low", "high"))
            lines.append(Line(title(str(method)), list(found), mean, low, high, "joined"))
            labels.append(title(str(method)))
        shown = MANIFOLD_WORDS.get(design, f"{design.replace('valley ', 'valley, ')} times steeper across")
        panels.append(Panel(lines, LENGTH, shown.replace("valley, 1 times steeper across", "round wells"), marks=marks))
    return Drawn(
        name, heading,
        "Radii are matched: at each point of the axis all methods move the same mean Euclidean distance. Bands: 95 % "
        "(Wilson). The line is plain descent from the same starts.",
        f"Share by length: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, heading, panels), tuple(dict.fromkeys(labels)),
    )  # fmt: skip


def _curvature(ends: pd.DataFrame) -> Drawn:
    rows = ends[ends["design"] == "hyperbola"]
    lines, marks, words = [], [Mark(2.0, "flattest, 2", "y")], []
    for method, part in rows.groupby("method", sort=False):
        quantiles = part.groupby("length")["score"].quantile(np.array([0.25, 0.5, 0.75])).unstack()
        words.append(f"{title(str(method))}: " + ", ".join(f"{x:.2f}" for x in quantiles[0.5]))
        if method == "SGD":
            marks.append(Mark(float(quantiles[0.5].iloc[0]), "descent", "y"))
            continue
        line = (quantiles.index, quantiles[0.5], quantiles[0.25], quantiles[0.75])
        lines.append(Line(title(str(method)), *line, "joined"))
    heading = "Curvature reached on the curve u·v = 1"
    return Drawn(
        "curvature", heading,
        "Medians over starts, bands from the lower to the upper quartile. Ends that never came to the curve are left "
        "out.", f"Median curvature by length: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, heading, [Panel(lines, LENGTH, marks=marks)]),
        tuple(line.label for line in lines),
    )  # fmt: skip


def _designs(config: LandscapesConfig) -> Drawn:
    problems: list[tuple[str, TwoWells | Hyperbola, tuple[float, float, float, float]]] = [
        (f"anisotropy {a:g}", valley(config.sharp, config.flat, a), (-3.0, 3.0, -1.5, 1.5))
        for a in (config.anisotropies[0], config.anisotropies[-1])
    ]
    problems.append(("u·v = 1", Hyperbola(), (-0.5, 3.0, -0.5, 3.0)))
    heading = "The flat designs, lines of equal loss"

    def paint(canvas: Canvas) -> Figure:
        figure, places = blanks(canvas, 3 * 135, 3, 1)
        for axes, (name, problem, (x0, x1, y0, y1)) in zip(places, problems, strict=True):
            x, y = np.linspace(x0, x1, 61), np.linspace(y0, y1, 61)
            points = torch.tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
            values = problem.value(problem.pack(points)).reshape(61, 61).numpy()
            axes.grid(visible=False)
            draw_contours(axes, canvas, x, y, values, np.geomspace(0.05, float(values.max()), 12))
            if isinstance(problem, TwoWells):
                for centre, label in zip(problem.centres, ("sharp", "flat"), strict=True):
                    u, v = centre
                    axes.plot(u, v, "o", color=canvas.look(label)["color"], markersize=6)
                    axes.annotate(label, (u, v), xytext=(6, 6), textcoords="offset points", color=canvas.ink.text,
                                  fontsize=SMALL)  # fmt: skip
            axes.set_title(name, fontsize=SMALL, color=canvas.ink.text, loc="left", pad=3)
        if canvas.titled:
            figure.suptitle(heading, fontsize=SMALL + 1.5, color=canvas.ink.text)
        return figure

    return Drawn(
        "designs", heading,
        "Both wells are 0 deep. On the sphere and on Stiefel's manifold the same wells lie at opposite points.",
        f"Curvatures {config.sharp:g} and {config.flat:g} in the steepest direction.", paint, ("sharp", "flat"),
    )  # fmt: skip
