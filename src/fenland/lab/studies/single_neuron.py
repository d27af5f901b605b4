"""How far the single neuron flattens: GD, USAM, SAM and SSAM on L(x, y) = l(x*y)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd

from fenland.lab.figures.plots import Line, Mark, Panel
from fenland.lab.replicas.neurons import neuron
from fenland.lab.study import Claim, Finding, Lab, Measured, Piece, Plot, Source, Study, Tables, ours
from fenland.lab.study.grid import above_zero
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import gathered, select

DAI = Source("The Crucial Role of Normalization in SAM, Dai, Ahn, Sra 2023, arXiv 2305.15287")
ENDS = ("SGD", "USAM", "SSAM-U", "SSAM")  # that come to rest
NAMES = {"SGD": "GD", "USAM": "USAM", "SAM": "SAM", "SSAM-U": "SSAM-U", "SSAM": "SSAM"}
CLOSE = 0.03  # below the predicted y^2, relative


@dataclass(frozen=True)
class Config:
    """What is run."""

    lrs: tuple[float, ...] = (0.05, 0.1)  # learning rates; 2/eta is GD's end
    rhos: tuple[float, ...] = (0.05, 0.1, 0.2)  # radii
    x: tuple[float, ...] = (0.02, 0.1, 0.3)  # of the starts
    y: float = 8.0  # of the starts, all beyond sqrt(2/eta)
    steps: int = 20_000  # taken

    def __post_init__(self) -> None:
        above_zero(self, "lrs", "rhos", "x", "y", "steps")


def measure(config: Config, lab: Lab) -> Tables:
    """A piece a method and learning rate."""
    starts = [(x, config.y) for x in config.x]
    pieces = [
        Piece(
            "paths", {**asdict(config), "method": method, "lr": lr},
            partial(neuron, method, (0.0,) if method == "SGD" else config.rhos, lr, starts, config.steps,
                    max(1, config.steps // 200)),
        )
        for lr in config.lrs
        for method in NAMES
    ]  # fmt: skip
    return gathered(lab, pieces, "methods")


def last(measured: Measured) -> pd.DataFrame:
    """The end of every path."""
    return measured["paths"].groupby(["method", "rho", "lr", "start"], sort=False).tail(1)


@statement
def ends_at(measured: Measured, method: str) -> Finding:
    """Whether y^2 ends just below its prediction from every start."""
    rows = select(last(measured), method=method)
    ratio = rows["y2"] / rows["predicted"]
    means = rows.groupby(["lr", "rho"])[["y2", "predicted"]].mean()
    said = "; ".join(f"{y:.4g} for {p:.4g}" + (f" (rho {rho:g})" if rho else "")
                     for (_, rho), (y, p) in zip(means.index, means.to_numpy(), strict=True))  # fmt: skip
    return Finding(f"within {100 * CLOSE:g} % below, from every start",
                   f"{said}; {ratio.min():.3f} to {ratio.max():.3f} of it",
                   bool(((ratio > 1 - CLOSE) & (ratio < 1 + 1e-9)).all()))  # fmt: skip


def normalised_falls(measured: Measured) -> Finding:
    """SAM's y^2 at the end against USAM's."""
    rows = last(measured)
    sam = rows[rows["method"] == "SAM"].set_index(["lr", "rho", "start"])["y2"]
    usam = rows[rows["method"] == "USAM"].set_index(["lr", "rho", "start"])["predicted"]
    share = (sam / usam).groupby("rho").max()
    said = ", ".join(f"{value:.2g} of it at rho {rho:g}" for rho, value in share.items())
    expected = "y^2 below a tenth of where USAM stays, at every radius"
    return Finding(expected, f"at most {said}", bool((share < 0.1).all()))


def falls_steadily(measured: Measured) -> Finding:
    """The rate of SAM's decay, between USAM's end and 1, in units of 2*eta*rho^2."""
    rows = measured["paths"][measured["paths"]["method"] == "SAM"]
    rates = []
    for _, own in rows.groupby(["lr", "rho", "start"], sort=False):
        lr, rho = own[["lr", "rho"]].iloc[0]
        kept = own[(own["y2"] < 0.5 / lr) & (own["y2"] > 1.0)]
        if len(kept) > 1:
            slope = float(np.polyfit(kept["step"].to_numpy(float), np.log(kept["y2"].to_numpy(float)), 1)[0])
            rates.append((lr, rho, -slope / (2 * lr * rho**2)))
    flat, settings = [rate for *_, rate in rates], {each[:2] for each in rates}
    said = f"{min(flat):.2f} to {max(flat):.2f} over {len(settings)} settings" if flat else "no path came so far"
    return Finding("0.7 to 1.5 times 2*eta*rho^2 a step", said,
                   all(0.7 < rate < 1.5 for rate in flat) if flat else None)  # fmt: skip


def paths(measured: Measured) -> list[Panel]:
    """y^2 by step at the first learning rate, one start, a panel a radius."""
    rows = measured["paths"]
    rows = rows[(rows["lr"] == rows["lr"].min()) & (rows["start"] == 0)]
    panels = []
    for rho in measured.config.rhos:
        own = rows[rows["rho"].isin((0.0, rho))]
        each = dict(tuple(own.groupby("method", sort=False)))
        lines = [Line(NAMES[m], part["step"], part["y2"].clip(lower=1e-4)) for m, part in each.items()]
        marks = [Mark(each[m]["predicted"].iloc[0], across="y", label=NAMES[m]) for m in ("SGD", "USAM")]
        panels.append(Panel(lines, "step", f"ρ = {rho:g}: y²", log_y=True, marks=marks, whole=True))
    return panels


STUDY = Study(
    name="single-neuron",
    title="The single neuron: how far y² falls",
    source=DAI.at("sections on the single-neuron linear network"),
    question="At which curvature y^2 do GD, USAM, SAM and SSAM end on L(x, y) = sqrt(1 + (x*y)^2) - 1?",
    config=Config,
    quick={"lrs": (0.05,), "x": (0.02, 0.3), "steps": 8000},
    runs=measure,
    claims=[
        Claim("GD ends at y^2 = 2/eta, however sharp it starts.", DAI, ends_at("SGD"), "paths"),
        Claim("USAM stays at y^2 >> 0, at y^2*(1 + rho*y^2) = 2/eta.", DAI, ends_at("USAM"), "paths"),
        Claim("SAM goes on: its y^2 falls towards 0.", DAI, normalised_falls, "paths"),
        Claim("SAM's y^2 falls by about 2*eta*rho^2 of itself a step.", ours("derived: e keeps the length rho along x"),
              falls_steadily, "paths"),
        Claim("SSAM on the unnormalised ascent ends where GD does.", ours("derived: one mode is left"),
              ends_at("SSAM-U"), "paths"),
        Claim("SSAM on the normalised ascent ends where GD does: renormalised, SAM no longer flattens here.",
              ours("derived: one mode is left"), ends_at("SSAM"), "paths"),
    ],
    figures=[Plot("paths", "y² by step", paths, "The first learning rate and start. Straight lines: the predicted ends "
                  "of GD and USAM.")],
    choices=(
        "The paper's l is any convex, even function of slope at most 1 with l''(0) = 1; here it is sqrt(1 + u^2) - 1.",
        "All starts lie beyond the edge, y^2 > 2/eta. From a start inside y^2 would stay about where it is.",
        "SSAM is not in the paper.",
    ),
)  # fmt: skip
