"""Matrix sensing with the normalised and the unnormalised ascent: Fig. 5 and Table III of "Investigations on SAM"."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from fenland.arguments import check_whole
from fenland.lab.figures.plots import METHODS, Line, Panel, plain_number
from fenland.lab.store.statistics import interval
from fenland.lab.study import Claim, Plot, Study
from fenland.lab.study.parts import OURS, Finding, Lab, Measured, Piece, Source, Tables, ours
from fenland.lab.study.published import next_draw
from fenland.lab.study.quantities import statement
from fenland.lab.study.rows import gathered, select
from fenland.lab.study.words import above, below, percent, share, together

# Table III, rho = 0.1: the loss at its steps 1 to 4, one draw.
PUBLISHED = {"SAM": (4.714, 2.81, 1.748, 1.199), "USAM": (4.872, 22.873, 70595465.0, 1.545e65)}
RADIUS = 0.1
FLOAT32_MAX = 3.4028235e38
TABLE = Source("Investigations on Sharpness-Aware Minimization, Table III")
FIGURE = Source("Investigations on SAM, Fig. 5 and Table III")


@dataclass(frozen=True)
class Config:
    """What is run."""

    d: int = 100  # rows of U
    r: int = 5  # columns of U
    m: int = 2500  # measurements
    lr: float = 0.5  # learning rate
    radii: tuple[float, ...] = (0.001, 0.005, 0.01, 0.1)  # rho; 0.1 is Table III's
    seeds: tuple[int, ...] = tuple(range(20))  # each draws measurements, truth and start anew
    steps: int = 10  # of every trajectory
    methods: tuple[str, ...] = ("SAM", "USAM", "SSAM-U")  # presets; SSAM-U is ours, the paper has the first two
    # what the table calls step 1: the loss at the "start", or "after" the first step
    first: Literal["start", "after"] = "start"

    def __post_init__(self) -> None:
        for name in ("d", "r", "m"):
            check_whole(name, getattr(self, name), 1)
        if self.steps < 4:
            raise ValueError(f"steps = {self.steps}: must be at least 4, the rows of the table")


def measure(config: Config, lab: Lab) -> Tables:
    """One piece a seed: a killed run goes on with the next one."""
    key = {name: getattr(config, name) for name in ("d", "r", "m", "lr", "radii", "steps", "methods")}
    pieces = [Piece("losses", {**key, "seed": seed}, partial(losses, config, seed)) for seed in config.seeds]
    return gathered(lab, pieces, "seeds")


def losses(config: Config, seed: int) -> pd.DataFrame:
    """Loss by method, radius and number of steps taken, of one draw of the problem."""
    from fenland.lab.replicas import MatrixSensing, grid, run

    problem = MatrixSensing(config.d, config.r, config.m, seed)
    start = problem.start(1, seed)
    rows = []
    for method in config.methods:
        done = run(problem, method, grid(start, rho=config.radii, lr=config.lr), config.steps, sample_every=1)
        for step, w in zip(done.sampled, done.samples[0], strict=True):
            values = problem.value([w])
            for index, rho in enumerate(config.radii):
                gone = 0 <= int(done.lost[index]) <= step  # left float64: the replica stays where it was
                loss = math.inf if gone else float(values[index])
                rows.append({"seed": seed, "rho": rho, "method": method, "steps": step, "loss": loss})
    return pd.DataFrame(rows)


def of(measured: Measured, method: str, rho: float, steps: int) -> np.ndarray:
    """The losses of all seeds after so many steps."""
    return select(measured["losses"], method=method, rho=rho, steps=steps)["loss"].to_numpy(float)


def claims(measured: Measured) -> Iterator[Claim]:
    """The rows of the table, who converges, and what 1e65 says."""
    config, methods = measured.config, measured.config.methods
    if RADIUS in config.radii:
        for method in (name for name in PUBLISHED if name in methods):
            words = (
                f"{'Geometric m' if method == 'USAM' else 'M'}ean over {len(config.seeds)} seeds and its 95 % interval."
            )
            sentence = f"The losses of {method} at rho = 0.1 are those of the table"
            yield Claim(sentence, TABLE, row(method), "table", notes=words)
        if "USAM" in methods:
            sentence = "The unnormalised ascent leaves float32 within four rows of the table (its 1.5e65 needs float64)"
            yield Claim(sentence, ours("read off the table's 1.5e65"), overflow, "table")
    sentences = {
        "SAM": ("SAM converges at every radius", FIGURE),
        "USAM": ("USAM converges up to rho = 0.01 and blows up at 0.1", FIGURE),
    }
    for method in methods:
        sentence, source = sentences.get(method, (f"{method} converges at every radius", OURS))
        note = "The same unnormalised ascent as USAM's, with the gradient renormalised."
        yield Claim(sentence, source, converges(method), "curves", notes=() if method in sentences else (note,))


@statement
def row(measured: Measured, method: str) -> Finding:
    """Whether the four published losses of a method could be a draw of ours; of logarithms where they span decades."""
    inside, words, logs = 0, [], method == "USAM"
    for step, published in enumerate(PUBLISHED[method]):
        numbers = of(measured, method, RADIUS, step + (measured.config.first == "after"))
        numbers, target = (np.log10(numbers), math.log10(published)) if logs else (numbers, published)
        low, high = next_draw(numbers, rows=len(PUBLISHED[method]))
        inside += bool(low <= target <= high)
        mean, *bounds = (_power(x) if logs else x for x in interval(numbers)[:3])
        words.append(f"{short(mean)} ({' to '.join(map(short, bounds))})")
    few = len(measured.config.seeds) < 3
    return Finding(
        "; ".join(map(short, PUBLISHED[method])), "; ".join(words), None if few else inside == 4,
        "" if few else f"{inside} of 4 published numbers lie where a new draw would.",
        "Not decided: fewer than 3 seeds say nothing about another draw.",
    )  # fmt: skip


def overflow(measured: Measured) -> Finding:
    """The fourth row against float32's end."""
    values = of(measured, "USAM", RADIUS, 3 + (measured.config.first == "after"))
    found, most = interval(np.log10(values)), share(int((values > FLOAT32_MAX).sum()), len(values))
    return Finding(
        "a loss of 1.5·10⁶⁵ in row 4, one draw; float32 ends at 3.4·10³⁸, and most draws lie above",
        f"10^{found.mean:.1f} (95 % interval 10^{found.low:.1f} to 10^{found.high:.1f}), above float32's end in "
        f"{percent(most)} of {len(values)} seeds",
        above(most, 0.5),
    )


@statement
def converges(measured: Measured, method: str) -> Finding:
    """At which radii most seeds' losses fall below half of their start's: a share, with its interval."""
    config, words, good = measured.config, [], []
    for rho in config.radii:
        ratio = of(measured, method, rho, config.steps) / of(measured, method, rho, 0)
        fell = share(int((ratio < 0.5).sum()), len(ratio))
        good.append(below(fell, 0.5) if method == "USAM" and rho >= RADIUS else above(fell, 0.5))
        middle = float(np.median(ratio))
        size = f"× {short(middle)}" if math.isfinite(middle) else "overflow"
        words.append(f"rho {rho:g}: {size}, below half in {percent(fell)} of {len(ratio)} seeds")
    return Finding(
        "the loss falls to less than half in most draws" + (", and does not at 0.1" if method == "USAM" else ""),
        f"loss after {config.steps} steps over that at the start, median: {'; '.join(words)}", together(good),
        open="Not decided: the interval of a share holds one half.",
    )  # fmt: skip


def line(measured: Measured, method: str, rho: float) -> Line:
    """Geometric mean over seeds with its 95 % interval by steps, where all are finite."""
    rows = select(measured["losses"], method=method, rho=rho)
    steps = {step: part["loss"].to_numpy(float) for step, part in rows.groupby("steps")}
    found = {step: interval(np.log10(x)) for step, x in steps.items() if np.isfinite(x).all()}
    mean, low, high = ([_power(each[k]) for each in found.values()] for k in range(3))
    return Line(method, list(found), mean, low, high)


def by_steps(measured: Measured) -> list[Panel]:
    """Fig. 5's curves, one panel a radius."""
    config = measured.config
    return [
        Panel([line(measured, m, rho) for m in config.methods], "steps", f"rho = {rho:g}", log_y=True, whole=True)
        for rho in config.radii
    ]


def by_row(measured: Measured) -> list[Panel]:
    """Our mean losses of the table's rows as lines, the published ones as points."""
    config, panels = measured.config, []
    shift = 0 if config.first == "start" else 1
    for method in (name for name in PUBLISHED if name in config.methods and RADIUS in config.radii):
        mine = line(measured, method, RADIUS)
        kept = slice(shift, shift + 4)
        part = {name: getattr(mine, name)[kept] for name in ("y", "low", "high")}
        lines = [replace(mine, x=[step - shift + 1 for step in mine.x[kept]], **part),
                 Line(method, [1, 2, 3, 4], PUBLISHED[method], kind="dots")]  # fmt: skip
        panels.append(Panel(lines, "row of the table", method, log_y=True, x_limits=(0.8, 4.2), whole=True))
    return panels


def _power(x: float) -> float:
    """10^x up to 10^250: the interval of a few wide losses reaches beyond float64."""
    return float(10 ** min(x, 250.0))


def short(value: float) -> str:
    """A number in four digits."""
    return plain_number(float(f"{value:.4g}"))


STUDY = Study(
    name="matrix-sensing",
    title="Normalisation in matrix sensing",
    source=Source("Investigations on Sharpness-Aware Minimization, Fig. 5 and Table III, appendix B (after Li, Ma, "
                  "Zhang 2018)"),
    question="Does SAM's normalisation keep it stable at a radius where the unnormalised ascent blows up?",
    config=Config,
    quick={"seeds": (0, 1, 2, 3, 4)},
    runs=measure,
    claims=claims,
    figures=[
        Plot(
            "curves", "Loss by steps", by_steps, lambda m: f"Geometric means over {len(m.config.seeds)} seeds with 95 "
            "% intervals. A line that stops has left float64.", METHODS, columns=2, height=150,
        ),
        lambda m: Plot(
            "table", "Table III: loss at rho = 0.1", by_row, "Lines: geometric means over our seeds, with 95 % "
            "intervals. Points: the published numbers, one draw.", METHODS,
        )(m) if RADIUS in m.config.radii else [],
    ],
    choices=(
        "The loss is 1/(2m) Σ (⟨Aᵢ, UUᵀ⟩ − bᵢ)² and U has the shape (d, r). The paper's text leaves the factor and the "
        "shape open; with this choice its numbers come out.",
        "The columns of the truth and of the start have unit length; the paper draws them normal and says no more.",
        "The table's step 1 is the loss at the start (field first; after is the other reading).",
        "The published losses at step 1 differ between SAM and USAM, so the paper's two runs had different draws. Here "
        "all methods of a seed share measurements, truth and start.",
        "All numbers are float64: in float32 the fourth row of the table would be infinite.",
        "A published number is one draw. It agrees with ours if it lies in the interval in which a new draw of ours "
        "would lie (Student's t over seeds, 95 % for the four rows together; logarithms for USAM).",
    ),
)  # fmt: skip
