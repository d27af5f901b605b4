"""Figures and verdicts of the study `uniform-stability`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Panel, draw_panels
from fenland.lab.figures.style import title_of
from fenland.lab.store.statistics import Interval, interval
from fenland.lab.studies.uniform_stability import LINEAR
from fenland.lab.study.base import Tables, Verdict
from fenland.lab.study.trained import (
    above,
    below,
    by,
    colours,
    explained,
    lossy,
    lost,
    paired,
    ratio_of,
    shown,
    together,
)

PAPER = "ours, as a reading of the SSAM paper's Figs. 4 and 5 by its abstract; the captions state no order"
WORDS = {"normalised": "|w − w'| / sqrt(|w|² + |w'|²)", "absolute": "|w − w'|"}
TITLES = {
    "normalised": "Distance of the two runs, normalised",
    "absolute": "Distance of the two runs |w − w'|",
    "gap": "Generalisation gap: test loss − train loss",
}
CONVEX = "Distance on softmax regression, and its bound"


def draw(optimizers: Sequence[str], tables: Tables) -> list[Drawn]:
    """Distance in both measures and gap for the networks; distance and bounds for the convex problem."""
    table = _derived(tables)
    networks = table[table["model"] != LINEAR]
    found = [_curves(networks, name, optimizers) for name in TITLES] if len(networks) else []
    return found + ([_bounded(tables, table)] if len(tables["bounds"]) else [])


def judge(optimizers: Sequence[str], measure: str, tables: Tables) -> list[Verdict]:
    """All verdicts."""
    table = _derived(tables)
    found = []
    steps = list(pairwise(optimizers))
    for task, rows in by(table[table["model"] != LINEAR], "task"):
        note = _note(tables, rows)
        found.append(_grows(str(task), rows, optimizers, measure, note))
        found += [_nearer(str(task), rows, ours, theirs, measure, note) for theirs, ours in steps]
        found += [_gap(str(task), rows, ours, theirs, note) for theirs, ours in steps]
    names = dict.fromkeys(tables["bounds"]["optimizer"])
    return explained([*found, *(_within(tables, table, str(name)) for name in names)], "pairs")


def _derived(tables: Tables) -> pd.DataFrame:
    table = tables["pairs"]
    found: pd.DataFrame = table.assign(
        task=table["data"] + "/" + table["model"],
        absolute=table["distance"],
        normalised=table["distance"] / table["norm"],
        gap=table["test_loss"] - table["train_loss"],
        run=table["data"] + table["model"] + table["optimizer"] + table["pair"].astype(str),
    )
    return found


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    """The last epoch of the runs that reached it."""
    found: pd.DataFrame = rows[(rows["epoch"] == rows["epoch"].max()) & (rows["status"] == "finished")]
    return found


def _note(tables: Tables, rows: pd.DataFrame) -> str:
    means = _last(rows).groupby("optimizer", sort=False)["train_loss"].mean()
    losses = ", ".join(f"{title_of(str(name))} {value:.2g}" for name, value in means.items())
    ends = rows.sort_values("epoch").groupby("run").tail(1)
    words = (
        f"Paired over {rows['pair'].nunique()} pairs.",
        f"Train losses at the end: {losses}: who has gone less far has also parted less.",
        lossy({"data": tables["data"][tables["data"]["data"].isin(rows["data"].unique())]}),
        lost(ends),
    )
    return " ".join(word for word in words if word)


def _grows(task: str, rows: pd.DataFrame, optimizers: Sequence[str], measure: str, note: str) -> Verdict:
    answers, words = [], []
    for name in optimizers:
        own = rows[rows["optimizer"] == name]
        ends = own[own["epoch"].isin([1, own["epoch"].max()])]
        change = paired(ends, "epoch", own["epoch"].max(), 1, measure, "pair")
        answers.append(above(change))
        words.append(f"{title_of(name)} {shown(change)}")
    return Verdict(
        f"{task}: the distance grows with training.",
        "SSAM paper, Figs. 4 and 5 by epoch; bounds grow with the steps (Hardt et al. 2016)",
        f"{WORDS[measure]} larger after the last epoch than after the first",
        "; ".join(words),
        together(answers),
        note,
        measure,
    )


def _nearer(task: str, rows: pd.DataFrame, ours: str, theirs: str, measure: str, note: str) -> Verdict:
    last = _last(rows)
    last = last.assign(log=np.log(last[measure].where(last[measure] > 0).astype(float)))
    log = paired(last, "optimizer", ours, theirs, "log", "pair")
    ratio = ratio_of(log)
    return Verdict(
        f"{task}: the runs of {title_of(ours)} part less than those of {title_of(theirs)}.",
        PAPER,
        f"a ratio of {WORDS[measure]} below 1 at the end",
        f"{shown(ratio, sign=False)}",
        below(log),
        note,
        measure,
    )


def _gap(task: str, rows: pd.DataFrame, ours: str, theirs: str, note: str) -> Verdict:
    last = _last(rows)
    change = paired(last, "optimizer", ours, theirs, "gap", "pair")
    means = ", ".join(
        f"{title_of(name)} {shown(interval(last[last['optimizer'] == name]['gap']))}" for name in (theirs, ours)
    )
    return Verdict(
        f"{task}: {title_of(ours)} has a smaller generalisation gap than {title_of(theirs)}.",
        PAPER,
        "a difference of the gaps (test loss − train loss) below 0 at the end",
        f"{shown(change)} ({means})",
        below(change),
        note,
        "gap",
    )


def _within(tables: Tables, table: pd.DataFrame, name: str) -> Verdict:
    """The mean distance by epoch against the mean bound; the tightest epoch is shown."""
    rows = table[(table["model"] == LINEAR) & (table["optimizer"] == name) & (table["status"] == "finished")]
    bounds = tables["bounds"]
    bounds = bounds[bounds["optimizer"] == name]
    claim = f"Softmax regression: the mean distance of {title_of(name)}'s runs keeps to its bound."
    source = "fenland.theory.uniform_stability (SGD: Hardt et al. 2016, theorem 3.8; others derived)"
    if not bounds["bound"].notna().any():
        why = str(bounds["why"].iloc[0]) if len(bounds) else ""
        return Verdict(claim, source, "no bound", "not compared", None, f"No bound is known here: {why}.", "convex")
    shares = {}
    for epoch, part in by(rows[rows["epoch"] > 0], "epoch"):
        bound = float(bounds[bounds["epoch"] == epoch]["bound"].mean())
        found = interval(part["distance"])
        shares[epoch] = Interval(found.mean / bound, found.low / bound, found.high / bound, found.n)
    if not shares:
        return Verdict(claim, source, "at most 1 of the bound", "no finished run", None, figure="convex")
    most = max(shares, key=lambda epoch: shares[epoch].mean)
    return Verdict(
        claim,
        source,
        "|w − w'| at most 1 times the bound, at every epoch",
        f"at most {shown(shares[most], sign=False)} of it (epoch {most})",
        below(shares[most], 1.0),
        "Convex with known L and beta, so the bound's assumptions hold. It is one for the worst data, hence loose.",
        "convex",
    )


def _curves(rows: pd.DataFrame, column: str, optimizers: Sequence[str]) -> Drawn:
    panels, words = [], []
    for task, part in by(rows, "task"):
        lines = []
        for name in optimizers:
            line = _line(part[part["optimizer"] == name], name, column)
            lines.append(line)
            words.append(f"{title_of(name)} on {task} {line.y[-1]:.3g}" if line.y else f"{title_of(name)} none")
        panels.append(Panel(lines, "epoch", str(task), whole=True))
    title = TITLES[column]
    return Drawn(
        column, title,
        "Means over pairs of train sets that differ in one example, with 95 % intervals. Constant learning rate, no "
        "momentum, no weight decay.",
        f"{title}, by epoch. At the last one: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, panels), colours(optimizers),
    )  # fmt: skip


def _line(rows: pd.DataFrame, name: str, column: str, kind: str = "line") -> Line:
    done = rows[rows["status"] == "finished"]
    found = {epoch: interval(part[column]) for epoch, part in done.groupby("epoch")}
    mean, low, high = ([getattr(x, key) for x in found.values()] for key in ("mean", "low", "high"))
    return Line(title_of(name), list(found), mean, low, high, kind)  # type: ignore[arg-type]


def _bounded(tables: Tables, table: pd.DataFrame) -> Drawn:
    lines, words = [], []
    names = tuple(str(name) for name in dict.fromkeys(tables["bounds"]["optimizer"]))
    for name in names:
        own = table[(table["model"] == LINEAR) & (table["optimizer"] == name) & (table["epoch"] > 0)]
        line = _line(own, name, "distance", "dots")
        lines.append(line)
        limits = tables["bounds"][tables["bounds"]["optimizer"] == name].groupby("epoch")["bound"].mean()
        allowed = "no bound"
        if limits.notna().any():
            lines.append(Line(title_of(name), limits.index, limits, kind="theory"))
            allowed = f"bound {limits.iloc[-1]:.3g}"
        words.append(f"{title_of(name)} {line.y[-1] if line.y else float('nan'):.3g}, {allowed}")
    return Drawn(
        "convex", CONVEX,
        "Points, on top of each other: mean over pairs with 95 % intervals; thin lines: the bound of the expected "
        "distance. Logarithmic "
        "axis. One that grows past 2 L times the sum of the learning rates, which any two runs keep, is cut there. "
        "SAM's has a term that no number of examples lowers; SSAM with the same ascent has no bound.",
        f"{CONVEX}. At the last epoch: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, CONVEX, [Panel(lines, "epoch", log_y=True, whole=True)]), colours(names),
    )  # fmt: skip
