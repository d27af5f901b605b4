"""Figure and verdicts of the study `gamma`."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Mark, Panel, draw_panels
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.study.base import Tables, Verdict
from fenland.lab.study.trained import above, below, by, explained, lossy, lost, paired, shown, together

PAPER = "SSAM paper, Fig. 3"
NAMES = {"usam": "unnormalised ascent, as in the paper", "sam": "normalised ascent"}
THIRD = 3


def draw(tables: Tables, optimizer: str) -> Drawn:
    """Gamma by epoch: a panel a network, a line a radius."""
    done = _done(tables, optimizer)
    title = f"Gamma by epoch, {NAMES[optimizer].split(',')[0]}"
    panels, words = [], []
    for model, part in by(done, "model"):
        lines = []
        for rho, runs in by(part, "rho"):
            found = {epoch: interval(rows["gamma"]) for epoch, rows in runs.groupby("epoch")}
            mean, low, high = ([getattr(x, key) for x in found.values()] for key in ("mean", "low", "high"))
            lines.append(Line(_label(float(rho)), list(found), mean, low, high))
            words.append(f"{model}, rho = {rho:g}: {mean[0]:.3f} at first, {mean[-1]:.3f} at last")
        panels.append(Panel(lines, "epoch", str(model), marks=[Mark(1.0, across="y")], whole=True))
    return Drawn(
        f"gamma_{optimizer}",
        title,
        "Mean over the steps of an epoch, then over seeds; bands are 95 % intervals over seeds. The dotted line is 1, "
        "where SSAM would step like SAM.",
        f"{title}. {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, panels),
        tuple(_label(float(rho)) for rho in sorted(done["rho"].unique())),
    )


def judge(tables: Tables, optimizers: list[str]) -> list[Verdict]:
    """All verdicts."""
    found = [verdict for name in optimizers for verdict in (_below_one(tables, name), _radius(tables, name))]
    if "sam" in optimizers:
        found.append(_falls(tables))
    if len(optimizers) == 2:
        found.append(_apart(tables))
    return explained(found)


def _label(rho: float) -> str:
    return f"rho = {rho:g}"


def _done(tables: Tables, optimizer: str) -> pd.DataFrame:
    table = tables["gamma"]
    return table[(table["status"] == "finished") & (table["optimizer"] == optimizer)]


def _note(tables: Tables, *sentences: str) -> str:
    return " ".join(part for part in (*sentences, lossy(tables), lost(tables["gamma"])) if part)


def _below_one(tables: Tables, optimizer: str) -> Verdict:
    """The epoch at which gamma is largest decides."""
    answers, words = [], []
    for (model, rho), runs in _done(tables, optimizer).groupby(["model", "rho"], sort=False):
        epochs = {epoch: interval(rows["gamma"]) for epoch, rows in runs.groupby("epoch")}
        most = max(epochs, key=lambda epoch: epochs[epoch].mean)
        answers.append(below(epochs[most], 1.0))
        words.append(f"{model}, rho = {rho:g}: at most {shown(epochs[most], '.4f', sign=False)} (epoch {most!s})")
    return Verdict(
        f"Gamma is below 1 throughout training, so SSAM's steps are shorter than SAM's ({NAMES[optimizer]}).",
        f"ours, as a reading of {PAPER}: its caption states no value",
        "every epoch's mean below 1, for each network and radius",
        "; ".join(words),
        together(answers),
        _note(tables, "The epoch with the largest mean is shown; its interval decides."),
        f"gamma_{optimizer}",
    )


def _radius(tables: Tables, optimizer: str) -> Verdict:
    answers, words = [], []
    for model, part in by(_done(tables, optimizer), "model"):
        means = part.groupby(["seed", "rho"])["gamma"].mean().reset_index()
        rhos = sorted(means["rho"].unique())
        for small, large in pairwise(rhos):
            gap = paired(means, "rho", large, small, "gamma")
            answers.append(below(gap))
            words.append(f"{model}, {small:g} to {large:g}: {shown(gap)}")
    return Verdict(
        f"Gamma is the smaller the larger the radius is ({NAMES[optimizer]}).",
        f"ours, as a reading of {PAPER}; on quadratics fenland.theory.gamma_bounds",
        "mean over the epochs falls from each radius to the next",
        "; ".join(words),
        together(answers),
        _note(tables, "Differences paired over seeds."),
        f"gamma_{optimizer}",
    )


def _falls(tables: Tables) -> Verdict:
    answers, words = [], []
    done = _done(tables, "sam")
    third = max(1, int(done["epoch"].max()) // THIRD)
    last = done["epoch"].max() - third
    for (model, rho), runs in done.groupby(["model", "rho"], sort=False):
        change = _change(runs, third, int(last))
        answers.append(below(change))
        words.append(f"{model}, rho = {rho:g}: {shown(change)}")
    return Verdict(
        "With the normalised ascent gamma falls through training, as the gradient gets short against the radius.",
        "ours, from gamma = |w|/(|w| + rho) at a minimum (fenland.theory.gamma_normalized)",
        "mean of the last third of the epochs below that of the first third",
        "; ".join(words),
        together(answers),
        _note(tables, "A network is no single mode, and its curvature changes on the way: the theory may fail here."),
        "gamma_sam",
    )


def _change(runs: pd.DataFrame, first: int, last: int) -> Interval:
    by_seed = runs.groupby("seed")[["epoch", "gamma"]]
    return interval(
        part[part["epoch"] > last]["gamma"].mean() - part[part["epoch"] <= first]["gamma"].mean() for _, part in by_seed
    )


def _apart(tables: Tables) -> Verdict:
    answers, words = [], []
    done = tables["gamma"][tables["gamma"]["status"] == "finished"]
    end = done[done["epoch"] == done["epoch"].max()]
    for (model, rho), part in end.groupby(["model", "rho"], sort=False):
        gap = paired(part, "optimizer", "usam", "sam", "gamma")
        answers.append(above(gap))
        words.append(f"{model}, rho = {rho:g}: {shown(gap)}")
    return Verdict(
        "At the same rho the unnormalised ascent leaves gamma nearer to 1 at the end than the normalised one.",
        "ours: its ascent shrinks with the gradient (fenland.theory.gamma_smooth)",
        "a larger gamma at the last epoch",
        "; ".join(words),
        together(answers),
        _note(tables, "Differences paired over seeds. The two radii have different units: weight, and weight squared "
                      "per loss."),
        "gamma_usam",
    )  # fmt: skip
