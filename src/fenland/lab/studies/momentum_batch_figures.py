"""Figures of the study `momentum-batch`."""

from __future__ import annotations

import pandas as pd

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.plots import Line, Panel, draw_panels
from fenland.lab.store.statistics import interval
from fenland.lab.studies.momentum_batch_verdicts import EFFECTIVE, NAMES, SAME
from fenland.lab.study.base import Tables


def draw(tables: Tables) -> list[Drawn]:
    """Escape by batch size at each momentum, both readings of momentum, and the trained network."""
    medians = tables["medians"]
    return [
        _escape(medians, SAME, "escape", "Median steps to escape, same lr"),
        _escape(medians, EFFECTIVE, "effective", "Median steps to escape, same lr / (1 − momentum)"),
        _accuracy(tables["trained"]),
    ]


def _escape(medians: pd.DataFrame, reading: str, name: str, title: str) -> Drawn:
    rows = medians[medians["reading"] == reading]
    panels, words = [], []
    for momentum, part in rows.groupby("momentum"):
        lines = []
        for method, cells in part.groupby("method", sort=False):
            label = NAMES[str(method)]
            if cells["theory"].notna().all():
                lines.append(Line(label, cells["batch"], cells["theory"], kind="theory"))
                lines.append(Line(label, cells["batch"], cells["median"], cells["low"], cells["high"], "dots"))
            else:
                lines.append(Line(label, cells["batch"], cells["median"], cells["low"], cells["high"], "joined"))
            words.append(f"{label}, momentum {momentum:g}: " + ", ".join(f"{x:.0f}" for x in cells["median"]))
        panels.append(Panel(lines, "batch size B", f"momentum {momentum:g}", log_x=True))
    return Drawn(
        name, title,
        "Points are medians over paths with 95 % intervals; the thin lines of SGD and unnormalised SAM are the closed "
        "form with momentum. Every path starts on the saddle.",
        f"Median steps over batch sizes {', '.join(map(str, sorted(rows['batch'].unique())))}: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, panels), tuple(NAMES.values()),
    )  # fmt: skip


def _accuracy(trained: pd.DataFrame) -> Drawn:
    done = trained[trained["status"] == "finished"]
    panels, words = [], []
    for (reading, batch), part in done.groupby(["reading", "batch_size"], sort=False):
        lines = []
        for optimizer, runs in part.groupby("optimizer", sort=False):
            found = {m: interval(100 * x["test_accuracy"]) for m, x in runs.groupby("momentum")}
            mean, low, high = ([getattr(x, key) for x in found.values()] for key in ("mean", "low", "high"))
            lines.append(Line(str(optimizer), list(found), mean, low, high, "joined"))
            words.append(f"{optimizer}, B = {batch}, {reading}: " + ", ".join(f"{x:.1f}" for x in mean))
        panels.append(Panel(lines, "momentum", f"B = {batch}, {reading}"))
    title = "Test accuracy, %, by momentum and batch size"
    return Drawn(
        "accuracy", title,
        "Means over seeds at the last epoch, bands are 95 % intervals. Equal epochs, constant learning rate.",
        f"Test accuracy in per cent by momentum: {'; '.join(words)}.",
        lambda canvas: draw_panels(canvas, title, panels),
        tuple(str(x) for x in trained["optimizer"].unique()),
    )  # fmt: skip
