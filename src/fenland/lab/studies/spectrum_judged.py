"""Figures and verdicts of the study `spectrum`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fenland.diagnostics.curvature import Density
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.intervals import draw_intervals
from fenland.lab.figures.plots import Line, Panel, draw_panels
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import interval
from fenland.lab.study.base import Tables, Verdict
from fenland.lab.study.trained import below, by, colours, explained, lossy, lost, paired, ratio_of, shown, together

PAPER = "SSAM paper, abstract: flatter minima by Hessian analyses"
OURS = "ours: what sharpness-aware training is for (Foret et al. 2021)"
PER_LOSS = (
    "ours, added after the first results: near a fit the Hessian of cross-entropy shrinks with the loss, "
    "whatever minimised it"
)
WORDS = {
    "largest": "largest eigenvalue of the Hessian",
    "trace": "trace of the Hessian",
    "per loss": "largest eigenvalue for its train loss",
}
STABLE = (("ssam", "sam"), ("ssam-u", "usam"))
FLOOR = 1e-6  # of a density's peak: below, the logarithmic axis would show quadrature noise only
POINTS = 200


def draw(optimizers: Sequence[str], tables: Tables) -> list[Drawn]:
    """Largest eigenvalues, density, and the trace by network."""
    labels = tuple(name for name in optimizers if (tables["spectrum"]["optimizer"] == name).any())
    if not labels:
        return []
    models = list(dict.fromkeys(tables["spectrum"]["model"]))
    return [_largest(tables, labels), _density(tables, labels), *(_trace(tables, labels, name) for name in models)]


def judge(optimizers: Sequence[str], tol: float, tables: Tables) -> list[Verdict]:
    """All verdicts."""
    first, *others = optimizers
    pairs = [(name, first) for name in others]
    pairs += [(ours, theirs) for ours, theirs in STABLE if {ours, theirs} <= set(optimizers) and theirs != first]
    verdicts = [_flatter(tables, ours, theirs, what) for what in WORDS for ours, theirs in pairs]
    return explained([*verdicts, _residuals(tables, tol)])


def _flatter(tables: Tables, ours: str, theirs: str, what: str) -> Verdict:
    """The ratio of two positive numbers, by its logarithm."""
    rows = tables["spectrum"]
    rows = rows[(rows["kind"] == ("trace" if what == "trace" else "largest")) & (rows["rank"] <= 1)]
    if what == "per loss":
        rows = rows.merge(tables["runs"][["run", "train_loss"]], on="run")
        rows = rows.assign(value=rows["value"] / rows["train_loss"])
    rows = rows.assign(log=np.log(rows["value"].where(rows["value"] > 0).astype(float)))
    answers, words = [], []
    for model, part in by(rows, "model"):
        log = paired(part, "optimizer", ours, theirs, "log")
        answers.append(below(log))
        ratio = ratio_of(log)
        means = " against ".join(_mean(part, name) for name in (ours, theirs))
        words.append(f"{model}: {shown(ratio, sign=False)} times as much ({means})")
    return Verdict(
        f"{title_of(ours)} ends with a smaller {WORDS[what]} than {title_of(theirs)}.",
        PER_LOSS if what == "per loss" else PAPER if ours.startswith("ssam") else OURS,
        "a ratio below 1, for each network",
        "; ".join(words) or "no finished run",
        together(answers),
        " ".join(x for x in ("Paired over seeds, by logarithms.", _losses(tables), lossy(tables), _lost(tables)) if x),
        "largest" if what != "trace" else f"trace_{rows['model'].iloc[0]}" if len(rows) else "",
    )


def _mean(part: pd.DataFrame, optimizer: str) -> str:
    found = interval(part[part["optimizer"] == optimizer]["value"])
    return f"{found.mean:.3g}" if found.n else "not measured"


def _losses(tables: Tables) -> str:
    """How far each method fitted the data: what curvature of the cross-entropy depends on by itself."""
    done = tables["runs"][tables["runs"]["status"] == "finished"]
    parts = []
    for model, runs in done.groupby("model", sort=False):
        means = runs.groupby("optimizer", sort=False)["train_loss"].mean()
        parts.append(f"{model} " + ", ".join(f"{title_of(str(name))} {value:.2g}" for name, value in means.items()))
    return f"Train losses: {'; '.join(parts)}." if parts else ""


def _lost(tables: Tables) -> str:
    return lost(tables["runs"])


def _residuals(tables: Tables, tol: float) -> Verdict:
    """As `curvature.extreme_eigenvalues` promises them: of 1 % of the largest where an eigenvalue is smaller."""
    rows = tables["spectrum"]
    rows = rows[rows["kind"] == "largest"]
    share = 0.0
    for _, part in rows.groupby("run"):
        size = part["value"].abs()
        share = max(share, float((part["error"] / np.maximum(size, 0.01 * size.max())).max()))
    worst = float(rows["error"].max()) if len(rows) else float("nan")
    return Verdict(
        "Every eigenvalue is one: its residual |Hv − lv| is small against it.",
        "ours, a check of the measurement",
        f"residuals of at most {tol:g} of the eigenvalue (of 1 % of the largest, for smaller ones)",
        f"at most {share:.2g} of it, in {len(rows)} eigenpairs; {worst:.2g} in absolute terms",
        bool(share <= tol) if len(rows) else None,
        figure="largest",
    )


def _largest(tables: Tables, labels: tuple[str, ...]) -> Drawn:
    rows = tables["spectrum"]
    rows = rows[rows["kind"] == "largest"]
    panels, words = [], []
    for model, part in rows.groupby("model", sort=False):
        lines = []
        for name in labels:
            own = part[part["optimizer"] == name]
            found = {rank: interval(x["value"]) for rank, x in own.groupby("rank")}
            mean, low, high = ([getattr(x, key) for x in found.values()] for key in ("mean", "low", "high"))
            lines.append(Line(title_of(name), list(found), mean, low, high, "joined"))
            words.append(f"{title_of(name)} on {model}: {', '.join(f'{x:.3g}' for x in mean)}")
        panels.append(Panel(lines, "rank", str(model), log_y=True, whole=True))
    title = "Largest eigenvalues of the Hessian"
    return Drawn(
        "largest", title,
        "Means over seeds with 95 % intervals, logarithmic axis. Each eigenvalue lies within its residual, which is "
        "smaller than a point here.",
        f"{title}, by rank. {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, panels), colours(labels),
    )  # fmt: skip


def _density(tables: Tables, labels: tuple[str, ...]) -> Drawn:
    panels, words = [], []
    for model, part in tables["density"].groupby("model", sort=False):
        low, high = float(part["node"].min()), float(part["node"].max())
        width = 0.01 * (high - low) or 1e-12
        grid = torch.linspace(low - 3 * width, high + 3 * width, POINTS, dtype=torch.float64)
        lines, peak = [], 0.0
        for name in labels:
            own = part[part["optimizer"] == name]
            if len(own):
                every = torch.stack([_quadrature(run).on(grid, width)[0] for _, run in own.groupby("run")])
                peak = max(peak, float(every.mean(0).max()))
                lines.append(Line(title_of(name), grid.numpy(), every.mean(0).numpy()))
                words.append(f"{title_of(name)} on {model}: from {own['node'].min():.3g} to {own['node'].max():.3g}")
        panels.append(Panel(lines, "eigenvalue", str(model), log_y=True, y_limits=(FLOOR * peak, 2 * peak)))
    title = "Density of the Hessian's eigenvalues"
    return Drawn(
        "density", title,
        "Stochastic Lanczos quadrature, mean over seeds; each node is a Gaussian as wide as 1 % of the range shown. "
        "Logarithmic axis: nearly all eigenvalues lie at zero, and the ends are few.",
        f"{title}. {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, panels), colours(labels),
    )  # fmt: skip


def _quadrature(rows: pd.DataFrame) -> Density:
    paths = [part for _, part in rows.groupby("path")]
    nodes, weights = (tuple(torch.tensor(p[name].to_numpy()) for p in paths) for name in ("node", "weight"))
    return Density(nodes, weights, 0)


def _trace(tables: Tables, labels: tuple[str, ...], model: str) -> Drawn:
    rows = tables["spectrum"]
    rows = rows[(rows["kind"] == "trace") & (rows["model"] == model)]
    values = {title_of(name): rows[rows["optimizer"] == name]["value"].astype(float).tolist() for name in labels}
    values = {name: numbers for name, numbers in values.items() if numbers}
    title = f"Trace of the Hessian, {model}"
    error = float((rows["error"] / rows["value"].abs()).max())
    words = "; ".join(f"{name} {np.mean(numbers):.4g}" for name, numbers in values.items())
    return Drawn(
        f"trace_{model}", title,
        f"Rings are seeds, dots their means, bars the 95 % interval. A single trace has a standard error of at most "
        f"{error:.1%} of it, from its random vectors.",
        f"{title}. Means over seeds: {words}.",
        lambda canvas: draw_intervals(title, "trace", canvas, values), colours(labels),
    )  # fmt: skip
