"""Hallucinated minimisers: where normalised SAM comes to rest at no critical point, and what a warm start cures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd

from fenland import theory
from fenland.lab.figures.plots import Line, Mark, Panel
from fenland.lab.replicas.fates import wave, wells
from fenland.lab.study import Claim, Finding, Lab, Measured, Piece, Plot, Source, Study, Tables, ours
from fenland.lab.study.grid import above_zero
from fenland.lab.study.parts import Statement

PARK = Source("Sharpness-Aware Minimization Can Hallucinate Minimizers, Park, Jang, Ryu, Yang 2025, arXiv 2509.21818")
WELL, TOP = 4.0, 3.0  # of `wells`: the narrow minimum and the maximum beside it
NEAR = 0.03  # of a share
METHODS = ("SAM", "SSAM")
KINDS = ("minimum", "maximum", "hallucinated")


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        rhos: radii on the wave; half its period is pi.
        well_rhos: radii between the wells.
        starts: spread over the period, and between the wells.
        lr: on the wave; between the wells a tenth of it.
        steps: taken.
        warm: of them without the ascent at first, for the cure.
    """

    rhos: tuple[float, ...] = (0.5, 1.0, 2.0, 2.5, 3.0, 3.3, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    well_rhos: tuple[float, ...] = (0.25, 0.5, 0.8, 1.2, 1.5, 2.0, 2.5, 3.2)
    starts: int = 2000
    lr: float = 0.05
    steps: int = 4000
    warm: int = 1000

    def __post_init__(self) -> None:
        above_zero(self, "rhos", "well_rhos", "starts", "lr", "steps", "warm")


def measure(config: Config, lab: Lab) -> Tables:
    """Shares with and without a warm start."""
    plan = {
        "wave": partial(wave, config.rhos, config.lr), "wells": partial(wells, config.well_rhos, config.lr / 10),
    }  # fmt: skip
    pieces = [
        Piece(name, {**asdict(config), "method": method, "warm": warm},
              partial(compute, config.steps + warm, config.starts, warm, method))
        for name, compute in plan.items()
        for method in METHODS
        for warm in (0, config.warm)
    ]  # fmt: skip
    found = lab.keep_all(pieces, "landscapes")
    return {
        name: pd.concat([t for t, piece in zip(found, pieces, strict=True) if piece.name == name], ignore_index=True)
        for name in plan
    }


def rows_of(measured: Measured, table: str, warm: bool, method: str = "SAM") -> pd.DataFrame:
    """Of one method, by radius."""
    rows = measured[table]
    return rows[((rows["warm"] > 0) == warm) & (rows["method"] == method)].sort_values("rho")


def _shares(rows: pd.DataFrame, column: str) -> str:
    return ", ".join(f"{100 * share:.0f} % at {rho:g}" for rho, share in zip(rows["rho"], rows[column], strict=True))


def exists(measured: Measured) -> Finding:
    """Rests that are no critical points."""
    rows = rows_of(measured, "wave", warm=False)
    found = rows[rows["hallucinated"] > 0]
    slopes = ", ".join(f"{slope:.2f}" for slope in found["slope"])
    return Finding("some start rests where |grad L| is not 0", f"{_shares(found, 'hallucinated')}; |grad L| {slopes}",
                   len(found) > 0)  # fmt: skip


def only_past_the_maximum(measured: Measured) -> Finding:
    """None below rho = pi."""
    rows = rows_of(measured, "wave", warm=False)
    below, above = rows[rows["rho"] < math.pi], rows[(rows["rho"] > math.pi) & (rows["rho"] < 2 * math.pi)]
    return Finding("0 % below rho = pi, 100 % from there to 2*pi",
                   f"{_shares(below, 'hallucinated')}; {_shares(above, 'hallucinated')}",
                   bool((below["hallucinated"] == 0).all() and (above["hallucinated"] == 1).all()))  # fmt: skip


def as_derived(measured: Measured) -> Finding:
    """All three shares on the wave against the flow's."""
    rows = rows_of(measured, "wave", warm=False)
    off = max(
        abs(share - getattr(theory.cosine_fates(rho), kind))
        for kind in KINDS
        for rho, share in zip(rows["rho"], rows[kind], strict=True)
    )
    return Finding(f"every share within {100 * NEAR:g} points", f"at most {100 * off:.1f} points off", off < NEAR)


def between_wells(measured: Measured) -> Finding:
    """Beside a minimum that holds SAM."""
    rows = rows_of(measured, "wells", warm=False)
    own = rows[(rows["rho"] > WELL - TOP) & (rows["rho"] < TOP)]
    wanted = 1 - (TOP - own["rho"]) / WELL
    off = float((own["hallucinated"] - wanted).abs().max())
    return Finding("a share 1 - (3 - rho)/4 for 1 < rho < 3, 0 below",
                   f"{_shares(rows, 'hallucinated')}; at most {100 * off:.1f} points off",
                   off < NEAR and bool((rows[rows["rho"] < WELL - TOP]["hallucinated"] == 0).all()))  # fmt: skip


def cured(table: str, low: float, high: float, wholly: bool) -> Statement:
    """Whether a warm start leaves no start at a rest or a maximum, for radii in a range."""

    def judge(measured: Measured) -> Finding:
        def bad(warm: bool) -> pd.Series:
            rows = rows_of(measured, table, warm)
            rows = rows[(rows["rho"] > low) & (rows["rho"] < high)].set_index("rho")
            return rows["maximum"] + rows["hallucinated"]

        before, after = bad(warm=False), bad(warm=True)
        pairs = zip(before.index, before, after, strict=True)
        said = ", ".join(f"{100 * b:.0f} to {100 * a:.0f} % at {rho:g}" for rho, b, a in pairs)
        bound = 1e-9 if wholly else before - 1e-9
        return Finding("none left" if wholly else "fewer than without", said, bool((after < bound).all()))

    return judge


def shares(table: str, period: float) -> Plot:
    """Shares by radius, a panel without and one with the warm start."""

    def panels(measured: Measured) -> list[Panel]:
        found = []
        for warm, title in ((False, "From the start"), (True, "After a warm start by gradient descent")):
            rows = rows_of(measured, table, warm)
            lines = [Line(kind, rows["rho"], rows[kind], kind="joined") for kind in KINDS]
            found.append(Panel(lines, "ρ", title, y_limits=(-0.05, 1.05), marks=[Mark(period, "")]))
        return found

    title = "Where SAM ends on 1 − cos(w)" if table == "wave" else "Where SAM ends between two wells"
    caption = "Share of the starts. The line is the distance from the minimum over the maximum: π on the wave, 1 from "
    return Plot(table, title, panels, f"{caption}the narrow well.")


STUDY = Study(
    name="hallucinated",
    title="Hallucinated minimisers",
    source=PARK,
    question="From how many starts does SAM come to rest at points that are no critical points of the loss, and does "
    "starting with gradient descent prevent it?",
    config=Config,
    quick={"starts": 400, "steps": 1500, "warm": 500},
    runs=measure,
    claims=[
        Claim("SAM can come to rest where the loss has a slope.", PARK, exists, "wave"),
        Claim("On 1 - cos(w) that needs a radius beyond the way from a minimum to a maximum, and then all starts do.",
              ours("derived"), only_past_the_maximum, "wave"),
        Claim("Below it a share rho/pi of the starts is drawn to the maximum; shares repeat with rho + 2*pi.",
              ours("derived: fenland.theory.cosine_fates"), as_derived, "wave"),
        Claim("Beside a wide minimum that holds SAM, a narrow well behind a maximum makes SAM stall on the slope.",
              ours("derived"), between_wells, "wells"),
        Claim("A warm start by gradient descent prevents it, between the wells, from every start.", PARK,
              cured("wells", WELL - TOP, TOP, wholly=True), "wells"),
        Claim("It lets fewer starts stall there.", ours("those that descend into the narrow well first are left"),
              cured("wells", WELL - TOP, TOP, wholly=False), "wells"),
        Claim("On the wave a warm start prevents that the maximum draws SAM in.", ours("derived"),
              cured("wave", 0.0, math.pi, wholly=True), "wave"),
        Claim("On the wave a warm start prevents hallucinated minimisers too.", PARK,
              cured("wave", math.pi, 2 * math.pi, wholly=True), "wave"),
    ],
    figures=[shares("wave", math.pi), shares("wells", WELL - TOP)],
    choices=(
        "The paper's examples are two-dimensional and networks; one weight is enough for the effect, and its shares "
        "have closed forms. 1 - cos(w) has one kind of minimum; the second function has two, a wide one at 0 and a "
        "narrow one at 4 behind the maximum at 3.",
        "A start counts as hallucinated where the slope at w keeps its sign and stays above 0.01 over the last 60 "
        "steps, and that at the ascent point has vanished or changes its sign; else it is at the nearer kind of "
        "critical point.",
        "Radii just below 3 are left out: there the cycle of SAM's steps around 0 leaves what remains of its basin.",
        "The paper's remedy is for networks. What is judged here is whether it is one for these functions.",
    ),
)  # fmt: skip
