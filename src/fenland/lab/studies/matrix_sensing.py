"""Matrix sensing with the normalised and the unnormalised ascent: Fig. 5 and Table III of "Investigations on SAM"."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from fenland.arguments import check_whole
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import METHODS, Line, Panel, draw_panels, plain_number
from fenland.lab.store.statistics import interval
from fenland.lab.study.base import Lab, Study, Tables, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fenland.lab.figures.style import Canvas

# Table III, rho = 0.1: the loss at its steps 1 to 4.
PUBLISHED = {"SAM": (4.714, 2.81, 1.748, 1.199), "USAM": (4.872, 22.873, 70595465.0, 1.545e65)}
TABLE_RADIUS = 0.1
FLOAT32_MAX = 3.4028235e38
SOURCE = "Investigations on Sharpness-Aware Minimization, Table III"


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        d: rows of U.
        r: columns of U.
        m: measurements.
        lr: learning rate.
        radii: rho; 0.1 is Table III's.
        seeds: each draws measurements, truth and start anew.
        steps: of every trajectory.
        methods: presets; SSAM-U is ours, the paper has the first two.
        first: what the table calls step 1: the loss at the "start", or "after" the first step.
    """

    d: int = 100
    r: int = 5
    m: int = 2500
    lr: float = 0.5
    radii: tuple[float, ...] = (0.001, 0.005, 0.01, 0.1)
    seeds: tuple[int, ...] = tuple(range(20))
    steps: int = 10
    methods: tuple[str, ...] = ("SAM", "USAM", "SSAM-U")
    first: Literal["start", "after"] = "start"

    def __post_init__(self) -> None:
        for name in ("d", "r", "m"):
            check_whole(name, getattr(self, name), 1)
        if self.steps < 4:
            raise ValueError(f"steps = {self.steps}: must be at least 4, the rows of the table")


class MatrixSensingTable(Study[Config]):
    """See the module."""

    name = "matrix-sensing"
    title = "Normalisation in matrix sensing"
    source = (
        "Investigations on Sharpness-Aware Minimization, Fig. 5 and Table III, appendix B (after Li, Ma, Zhang 2018)"
    )
    question = "Does SAM's normalisation keep it stable at a radius where the unnormalised ascent blows up?"
    choices = (
        "The loss is 1/(2m) Σ (⟨Aᵢ, UUᵀ⟩ − bᵢ)² and U has the shape (d, r): the paper's text leaves the factor and the "
        "shape open, and this reading gives its numbers.",
        "The columns of the truth and of the start have unit length; the paper draws them normal and says no more.",
        "The table's step 1 is the loss at the start (field first; after is the other reading).",
        "The published losses at step 1 differ between SAM and USAM, so the paper's two runs had different draws. Here "
        "all methods of a seed share measurements, truth and start.",
        "Float64: in float32 the fourth row of the table would be infinite.",
        "A published number is one draw. It agrees where it lies in the interval that a new draw of ours would lie in "
        "(Student's t over seeds, 95 % for the four rows together; logarithms for USAM).",
    )
    presets = MappingProxyType({"quick": Config(seeds=(0, 1, 2, 3, 4)), "paper": Config()})

    def run(self, config: Config, lab: Lab) -> Tables:
        """One piece a seed: a killed run goes on with the next one."""
        pieces = []
        for seed in lab.track(config.seeds, len(config.seeds), "seeds"):
            key = {name: getattr(config, name) for name in ("d", "r", "m", "lr", "radii", "steps", "methods")}
            pieces.append(lab.keep("losses", {**key, "seed": seed}, lambda seed=seed: _losses(config, seed)))  # type: ignore[misc]
        return {"losses": pd.concat(pieces, ignore_index=True)}

    def figures(self, config: Config, tables: Tables) -> list[Drawn]:
        """Fig. 5's curves, and the table's numbers beside ours."""
        curves = _summary(tables["losses"])
        found = [_curves(config, curves)]
        if TABLE_RADIUS in config.radii:
            found.append(_beside(config, curves))
        return found

    def verdicts(self, config: Config, tables: Tables) -> list[Verdict]:
        """The rows of the table, who converges, and what 1e65 says."""
        losses = tables["losses"]
        found = []
        if TABLE_RADIUS in config.radii:
            found += [_row(config, losses, method) for method in PUBLISHED if method in config.methods]
            found += _overflow(config, losses)
        found += [_converges(config, losses, method) for method in config.methods]
        return found


def _losses(config: Config, seed: int) -> pd.DataFrame:
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


def _summary(losses: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean over seeds with its 95 % interval, by method, radius and steps; a row where all are finite."""
    rows = []
    for key, values in losses.groupby(["method", "rho", "steps"], sort=False)["loss"]:
        numbers = values.to_numpy(float)
        if np.isfinite(numbers).all():
            found = interval(np.log10(numbers))
            bounds = [_power(x) for x in (found.mean, found.low, found.high)]
            rows.append((*key, *bounds))
    return pd.DataFrame(rows, columns=["method", "rho", "steps", "mean", "low", "high"])


def _power(x: float) -> float:
    """10^x up to 10^250: the interval of a few wide losses reaches beyond float64."""
    return float(10 ** min(x, 250.0))


def _of(losses: pd.DataFrame, method: str, rho: float, steps: int) -> np.ndarray:
    rows = losses[(losses["method"] == method) & (losses["rho"] == rho) & (losses["steps"] == steps)]
    return rows["loss"].to_numpy(float)


def _row(config: Config, losses: pd.DataFrame, method: str) -> Verdict:
    """Whether the four published losses of a method could be a draw of ours."""
    logarithmic = method == "USAM"
    inside, words = [], []
    for step, published in enumerate(PUBLISHED[method]):
        values = _of(losses, method, TABLE_RADIUS, step + (config.first == "after"))
        numbers = np.log10(values) if logarithmic else values
        target = math.log10(published) if logarithmic else published
        low, high = next_draw(numbers, rows=len(PUBLISHED[method]))
        inside.append(bool(low <= target <= high))
        mean = interval(numbers)
        shown = [_power(x) if logarithmic else x for x in (mean.mean, mean.low, mean.high)]
        words.append(f"{_short(shown[0])} ({_short(shown[1])} to {_short(shown[2])})")
    undecided = len(config.seeds) < 3
    return Verdict(
        f"The losses of {method} at rho = 0.1 are those of the table",
        SOURCE,
        "; ".join(map(_short, PUBLISHED[method])),
        "; ".join(words),
        None if undecided else all(inside),
        f"{'Geometric m' if logarithmic else 'M'}ean over {len(config.seeds)} seeds and its 95 % interval. "
        + (
            "Fewer than 3 seeds say nothing about another draw."
            if undecided
            else f"{sum(inside)} of 4 published numbers lie where a new draw would."
        ),
        figure="table",
    )


def next_draw(numbers: np.ndarray, rows: int = 1) -> tuple[float, float]:
    """Where one more draw would lie: mean ± t * s * sqrt(1 + 1/n), 95 % for ``rows`` such statements together."""
    n = len(numbers)
    if n < 2 or not np.isfinite(numbers).all():
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 1 - 0.05 / rows / 2)) * float(numbers.std(ddof=1)) * math.sqrt(1 + 1 / n)
    return float(numbers.mean()) - half, float(numbers.mean()) + half


def _overflow(config: Config, losses: pd.DataFrame) -> list[Verdict]:
    if "USAM" not in config.methods:
        return []
    values = _of(losses, "USAM", TABLE_RADIUS, 3 + (config.first == "after"))
    found = interval(np.log10(values))
    above = int((values > FLOAT32_MAX).sum())
    return [
        Verdict(
            "The unnormalised ascent leaves float32 within four rows of the table (its 1.5e65 needs float64)",
            SOURCE,
            "a loss of 1.5·10⁶⁵ in row 4; float32 ends at 3.4·10³⁸",
            f"10^{found.mean:.1f} (95 % interval 10^{found.low:.1f} to 10^{found.high:.1f}), above float32's end in "
            f"{above} of {len(values)} seeds",
            above == len(values),
            figure="table",
        )
    ]


def _converges(config: Config, losses: pd.DataFrame, method: str) -> Verdict:
    """At which radii every seed's loss falls below half of its start's."""
    shares = []
    good = []
    for rho in config.radii:
        first, last = _of(losses, method, rho, 0), _of(losses, method, rho, config.steps)
        ratio = last / first
        good.append(bool((ratio < 0.5).all()))
        middle = float(np.median(ratio))
        size = f"× {_short(middle)}" if math.isfinite(middle) else "overflow"
        shares.append(f"rho {rho:g}: {size}, below half in {int((ratio < 0.5).sum())} of {len(ratio)} seeds")
    wanted = [method != "USAM" or rho < TABLE_RADIUS for rho in config.radii]
    claims = {
        "SAM": ("SAM converges at every radius", "Investigations on SAM, Fig. 5 and Table III"),
        "USAM": ("USAM converges up to rho = 0.01 and blows up at 0.1", "Investigations on SAM, Fig. 5 and Table III"),
    }
    claim, source = claims.get(method, (f"{method} converges at every radius", "ours"))
    return Verdict(
        claim,
        source,
        "the loss falls to less than half in every seed" + (", and does not at 0.1" if method == "USAM" else ""),
        f"loss after {config.steps} steps over that at the start, median: {'; '.join(shares)}",
        good == wanted,
        "" if method in claims else "The same unnormalised ascent as USAM's, with the gradient renormalised.",
        figure="curves",
    )


def _curves(config: Config, curves: pd.DataFrame) -> Drawn:
    panels = []
    for rho in config.radii:
        lines = [_line(curves, method, rho) for method in config.methods]
        panels.append(Panel(lines, "steps", f"rho = {rho:g}", log_y=True, whole=True))
    ends = "; ".join(_ends(curves, method, config) for method in config.methods)
    return Drawn(
        "curves",
        "Loss by steps",
        f"Geometric means over {len(config.seeds)} seeds with 95 % intervals. A line that stops has left float64.",
        f"Loss of matrix sensing by steps, one panel a radius. After {config.steps} steps: {ends}.",
        lambda canvas: draw_panels(canvas, "Loss by steps", panels, columns=2, height=150),
        tuple(dict.fromkeys((*METHODS, *config.methods))),
    )


def _ends(curves: pd.DataFrame, method: str, config: Config) -> str:
    parts = []
    for rho in config.radii:
        rows = curves[(curves["method"] == method) & (curves["rho"] == rho)]
        whole = len(rows) and int(rows["steps"].max()) == config.steps
        parts.append(f"{_short(rows['mean'].iloc[-1]) if whole else 'overflow'} at rho {rho:g}")
    return f"{method} {', '.join(parts)}"


def _line(curves: pd.DataFrame, method: str, rho: float) -> Line:
    rows = curves[(curves["method"] == method) & (curves["rho"] == rho)]
    return Line(method, rows["steps"], rows["mean"], rows["low"], rows["high"])


def _beside(config: Config, curves: pd.DataFrame) -> Drawn:
    """Our mean losses of the table's rows as lines, the published ones as points."""
    shift = 0 if config.first == "start" else 1

    def draw(canvas: Canvas) -> Figure:
        panels = []
        for method in (name for name in PUBLISHED if name in config.methods):
            line = _line(curves, method, TABLE_RADIUS)
            rows = [i for i, steps in enumerate(line.x) if shift <= steps < shift + 4]
            ours = replace(
                line, x=[line.x.iloc[i] - shift + 1 for i in rows],
                **{name: getattr(line, name).iloc[rows] for name in ("y", "low", "high")},
            )  # fmt: skip
            published = Line(method, [1, 2, 3, 4], PUBLISHED[method], kind="dots")
            panels.append(
                Panel([ours, published], "row of the table", method, log_y=True, x_limits=(0.8, 4.2), whole=True)
            )
        return draw_panels(canvas, title, panels)

    title = "Table III: loss at rho = 0.1"
    words = "; ".join(f"{name} {', '.join(map(_short, values))}" for name, values in PUBLISHED.items())
    return Drawn(
        "table",
        title,
        "Lines: geometric means over our seeds, with 95 % intervals. Points: the published numbers, one draw.",
        f"{title}, by the table's rows 1 to 4. Published: {words}. Ours are in the verdicts.",
        draw,
        METHODS,
    )


def _short(value: float) -> str:
    return plain_number(float(f"{value:.4g}"))
