"""Hallucinated minimisers: where normalised SAM comes to rest at no critical point, and what a warm start cures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd

from fenland import theory
from fenland.lab.figures.plots import Line, Mark, Panel
from fenland.lab.replicas.fates import wave, wells
from fenland.lab.study import Claim, Plot, Quantity, Seeds, Study, interval
from fenland.lab.study.full_batch import Setting, large_radius
from fenland.lab.study.grid import above_zero
from fenland.lab.study.parts import Finding, Lab, Measured, Piece, Source, Tables, ours
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import gathered, select
from fenland.lab.study.words import above

PARK = Source("Sharpness-Aware Minimization Can Hallucinate Minimizers, Park, Jang, Ryu, Yang 2025, arXiv 2509.21818")
WELL, TOP = 4.0, 3.0  # of `wells`: the narrow minimum and the maximum beside it
NEAR = 0.03  # of a share
METHODS = ("SAM", "SSAM")
FAILED = 0.5  # accuracy below which a training has failed
STALLED = 0.1  # |h| / |g|, as the doctor has it
accuracy = Quantity("accuracy", "Training accuracy, %", table="network", unit="points", scale=100, form=".1f")
KINDS = ("minimum", "maximum", "hallucinated")


@dataclass(frozen=True)
class Config:
    """What is run."""

    # radii on the wave; half its period is pi
    rhos: tuple[float, ...] = (0.5, 1.0, 2.0, 2.5, 3.0, 3.3, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    well_rhos: tuple[float, ...] = (0.25, 0.5, 0.8, 1.2, 1.5, 2.0, 2.5, 3.2)  # radii between the wells
    starts: int = 2000  # spread over the period, and between the wells
    lr: float = 0.05  # on the wave; between the wells a tenth of it
    steps: int = 4000  # taken
    warm: int = 1000  # of them without the ascent at first, for the cure
    net_rhos: tuple[float, ...] = (0.05, 0.5, 2.0, 5.0)  # radii on the network
    net_steps: int = 900  # full-batch steps of it
    net_warm: int = 300  # of them without the ascent at first
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of its initial weights

    def __post_init__(self) -> None:
        above_zero(self, "rhos", "well_rhos", "starts", "lr", "steps", "warm", "net_rhos", "net_steps", "net_warm")


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
    setting = Setting(lr=0.3, steps=config.net_steps)
    pieces += [
        Piece("network", {**asdict(setting), "rho": rho, "warm": warm, "seed": seed},
              partial(large_radius, setting, rho, warm, seed))
        for rho in config.net_rhos
        for warm in (0, config.net_warm)
        for seed in config.seeds
    ]  # fmt: skip
    tables = gathered(lab, pieces, "landscapes and trainings")
    pairs = tables["network"][["rho", "warm"]].to_numpy(float).tolist()
    cases = [f"ρ = {rho:g}, warm start" if warm else f"ρ = {rho:g}" for rho, warm in pairs]
    return tables | {"network": tables["network"].assign(case=cases)}


def rows_of(measured: Measured, table: str, warm: bool) -> pd.DataFrame:
    """Of SAM, by radius."""
    rows = select(measured[table], method="SAM")
    return rows[(rows["warm"] > 0) == warm].sort_values("rho")


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


@statement
def cured(measured: Measured, table: str, low: float, high: float, wholly: bool) -> Finding:
    """Whether a warm start leaves no start at a rest or a maximum, for radii in a range."""

    def bad(warm: bool) -> pd.Series:
        rows = rows_of(measured, table, warm)
        rows = rows[(rows["rho"] > low) & (rows["rho"] < high)].set_index("rho")
        return rows["maximum"] + rows["hallucinated"]

    before, after = bad(warm=False), bad(warm=True)
    pairs = zip(before.index, before, after, strict=True)
    said = ", ".join(f"{100 * b:.0f} to {100 * a:.0f} % at {rho:g}" for rho, b, a in pairs)
    bound = 1e-9 if wholly else before - 1e-9
    return Finding("none left" if wholly else "fewer than without", said, bool((after < bound).all()))


def mended(measured: Measured) -> Finding:
    """Accuracy at the largest radius with and without a warm start, paired over seeds."""
    rows = select(measured["network"], rho=max(measured.config.net_rhos))
    wide = rows.assign(late=rows["warm"] > 0).pivot_table(index="seed", columns="late", values="accuracy")
    gain = interval(wide[True] - wide[False])
    said = (
        f"{100 * wide[False].mean():.1f} % of the training images from the start, {100 * wide[True].mean():.1f} % "
        f"after a warm start at rho {max(measured.config.net_rhos):g}"
    )
    return Finding(
        "a higher accuracy after the warm start", said, above(gain), open="The interval over seeds reaches 0."
    )


def network_stalls(measured: Measured) -> Finding:
    """||h|| over ||g|| where SAM fails on the network."""
    rows = select(measured["network"], warm=0)
    rows = rows[rows["accuracy"] < FAILED]
    share = rows["ascent_grad_norm"] / rows["grad_norm"]
    least, most = rows["grad_norm"].min(), rows["grad_norm"].max()
    said = f"{len(rows)} runs fail"
    if len(rows):
        said += f"; |h| / |g| {share.min():.3g} to {share.max():.3g}, |g| {least:.2g} to {most:.2g}"
    return Finding("|h| below a tenth of |g| in every run that fails", said,
                   bool((share < STALLED).all()) if len(rows) else None,
                   "A saddle that holds the ascent has a small |g| and |h| far above it.",
                   open="SAM learns at every radius.")  # fmt: skip


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
    quick={"starts": 400, "steps": 1500, "warm": 500, "net_rhos": (0.5, 5.0), "seeds": (0, 1, 2)},
    runs=measure,
    claims=[
        Claim("SAM can come to rest where the loss has a slope.", PARK, exists, "wave"),
        Claim("On 1 - cos(w) that needs a radius beyond the way from a minimum to a maximum, and then all starts do.",
              ours("derived"), only_past_the_maximum, "wave"),
        Claim("Below it a share rho/pi of the starts is drawn to the maximum; shares repeat with rho + 2*pi.",
              ours("derived: fenland.theory.cosine_fates"), as_derived, "wave"),
        Claim("Beside a wide minimum that holds SAM, a narrow well behind a maximum makes SAM stall on the slope.",
              ours("derived"), between_wells, "wells"),
        Claim("A warm start by gradient descent lets fewer starts stall between the wells.", PARK,
              cured("wells", WELL - TOP, TOP, wholly=False), "wells"),
        Claim("It prevents stalling there from every start.", ours("the remedy, taken strictly"),
              cured("wells", WELL - TOP, TOP, wholly=True), "wells"),
        Claim("On the wave a warm start prevents that the maximum draws SAM in.", ours("derived"),
              cured("wave", 0.0, math.pi, wholly=True), "wave"),
        Claim("On the wave a warm start prevents hallucinated minimisers too.", ours("the remedy, taken strictly"),
              cured("wave", math.pi, 2 * math.pi, wholly=True), "wave"),
        Claim("On a network a warm start mends what SAM at a large radius does from the start.", PARK, mended,
              "network"),
        Claim("What stops SAM on the network at a large radius is a hallucinated minimiser.",
              ours("the paper's explanation, on this network"), network_stalls, "network"),
    ],
    figures=[
        shares("wave", math.pi), shares("wells", WELL - TOP),
        Seeds("network", accuracy, "case", title="Accuracy on the training images, %"),
    ],
    choices=(
        "The paper's examples have two weights, or are networks. One weight is enough for the effect, and then the "
        "shares of starts have closed forms. The wave 1 - cos(w) has one kind of minimum. The second function has two, "
        "a wide one at 0 and a narrow one at 4 behind the maximum at 3.",
        "A start counts as hallucinated if the slope at w keeps its sign and stays above 0.01 over the last 60 "
        "steps, and the slope at the ascent point has vanished or changes its sign. Otherwise it counts as being at "
        "the nearest critical point.",
        "Radii just below 3 are left out: there the cycle of SAM's steps around 0 is wider than what is left of its "
        "basin.",
        "The paper's remedy is for networks. Here that is one tanh layer on 300 digits, full batch, cross-entropy.",
    ),
)  # fmt: skip
