"""Figures of the study `diffusion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Mark, Panel, draw_panels
from fenland.lab.studies.diffusion_fits import exponent
from fenland.lab.studies.diffusion_verdicts import NORMAL, SIGNS
from fenland.lab.study.base import Tables

if TYPE_CHECKING:
    from fenland.lab.studies.diffusion import DiffusionConfig

TIME = "time t = η · steps"


def draw(config: DiffusionConfig, tables: Tables) -> list[Drawn]:
    """Displacement at the saddle, and the powers of (1 + rho*l)."""
    return [_displacement(config, tables["means"]), _exponents(config, tables["fits"])]


def _displacement(config: DiffusionConfig, means: pd.DataFrame) -> Drawn:
    batch, rho = config.batches[0], max(config.rhos)
    rows = means[(means["curvature"] < 0) & (means["batch"] == batch) & (means["step"] > 0)]

    def curve(label: str, source: str, method: str, radius: float) -> list[Line]:
        part = rows[(rows["source"] == source) & (rows["method"] == method) & (rows["rho"] == radius)]
        if part["theory"].isna().all():
            return [Line(label, part["t"], part["mean"], part["low"], part["high"])]
        return [
            Line(label, part["t"], part["theory"], kind="theory"),
            Line(label, part["t"], part["mean"], kind="dots"),
        ]

    sgd = curve("SGD", SIGNS, "SGD", 0.0)
    radii = [line for r in config.rhos for line in curve(f"SAM, ρ = {r:g}", SIGNS, "USAM", r)]
    models = [line for m in ("shared", "independent", "descent") for line in curve(f"SAM, {m}", m, "USAM", rho)]
    others = [
        line
        for label, method in (("SSAM", "SSAM-U"), ("SAM normalised", "SAM"), ("SSAM normalised", "SSAM"))
        for line in curve(label, "shared", method, rho)
    ]
    panels = [
        Panel([*sgd, *radii], TIME, "The optimizer on mini-batches"),
        Panel([*sgd, *models], TIME, f"Noise models, ρ = {rho:g}"),
        Panel([*sgd, *others], TIME, f"Other methods, ρ = {rho:g}"),
    ]
    labels = tuple(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    last = rows[rows["step"] == rows["step"].max()]
    words = "; ".join(f"{r.source} {r.method} rho {r.rho:g}: {r.mean:.3g}" for r in last.itertuples())
    title = f"Mean squared displacement at a saddle, B = {batch}"
    return Drawn(
        "displacement",
        title,
        "Dots are means over paths that start on the saddle, thin lines the closed form; bands are 95 % intervals over "
        "groups of paths. Top: one mini-batch in both passes. Middle: normal noise, drawn once for both passes "
        "(shared), once for each, or in the descent alone. Bottom: what has no closed form, shared noise.",
        f"Displacement at the last time: {words}.",
        lambda canvas: draw_panels(canvas, title, panels, height=165),
        labels,
    )


def _exponents(config: DiffusionConfig, fits: pd.DataFrame) -> Drawn:
    low, high = min(config.batches), max(config.batches)
    wanted = {
        "optimizer": (SIGNS, high), "shared": ("shared", high), "independent": ("independent", high),
        "descent": ("descent", high), f"varied, B = {high}": (NORMAL, high),
        f"varied, B = {low}": (NORMAL, low),
    }  # fmt: skip
    lines, words = [], []
    for label, (source, batch) in wanted.items():
        found = [exponent(fits, source, r, batch, -config.strength, "quadratic") for r in config.rhos]
        mean, lower, upper = ([getattr(x, name) for x in found] for name in ("mean", "low", "high"))
        lines.append(Line(label, config.rhos, mean, lower, upper, "joined"))
        words.append(f"{label}: " + ", ".join(f"{x:.2f}" for x in mean))
    marks = [
        Mark(2.0, "published", "y"), Mark(3.0, "one batch for both", "y"), Mark(1.0, "noise not ascended", "y"),
    ]  # fmt: skip
    room = 0.08 * (max(config.rhos) - min(config.rhos) or max(config.rhos))
    limits = (min(config.rhos) - room, max(config.rhos) + room)
    panel = Panel(lines, "radius ρ (w per gradient)", marks=marks, x_limits=limits)
    title = "k of the t² coefficient, SAM's = SGD's · (1 + ρλ)ᵏ"
    return Drawn(
        "exponents",
        title,
        "The published gap needs k = 2. Bands are 95 % intervals over groups of paths; SAM and SGD see the same noise. "
        f"λ = −{config.strength:g}.",
        f"k at radii {', '.join(f'{r:g}' for r in config.rhos)}: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, [panel]),
        tuple(wanted),
    )
