"""The figure beside the README's table of evidence: python docs/small_evidence.py [FOLDER].

Drawn from the same records as the table (docs/tables.py, `smaller`): a panel a task, a dot a method, a bar for the 95 %
interval over seeds, or for the range of three seeds.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import matplotlib
import tables
from matplotlib.figure import Figure

from fenland.lab.figures.style import PAPER, RC

HERE = Path(__file__).parent
FILE = "small-evidence.svg"
COLOURS = {"SGD, same epochs": "#8a929b", "SGD, same cost": "#1f6fb2", "SAM": "#c8590a", "SSAM": "#0f8060"}
Row = tuple[float, float, float]  # mean, low, high, in percent


def rows() -> dict[str, dict[str, Row]]:
    """Task -> method -> accuracy."""
    found: dict[str, dict[str, Row]] = {}
    kept = json.loads((HERE / "measured" / "when-not.json").read_text(encoding="utf-8"))["cases"]
    for case, rho in (("30 % of the labels wrong", 0.2), ("clean labels", 0.05)):
        named = {row["name"]: row["test_accuracy"] for row in kept[case]}
        names = ("SGD, equal epochs", "SGD, equal gradients", f"SAM, rho {rho}", f"SSAM, rho {rho}")
        values = [tuple(100 * named[name][key] for key in ("mean", "low", "high")) for name in names]
        found[f"digits, {case}"] = dict(zip(COLOURS, values, strict=True))
    _, record = tables.newest("target")
    task = found.setdefault(f"{record['config']['data']}, {record['config']['limit']} images", {})
    for shown, name in (("SGD, same cost", "SGD"), ("SAM", "SAM"), ("SSAM", "SSAM")):
        last = [100 * run["rows"][-1]["test_accuracy"] for run in record["runs"][name]]
        task[shown] = (100 * record["table"][name]["accuracy"], min(last), max(last))
    return found


def draw() -> str:
    """The figure as SVG, the same text each time."""
    with matplotlib.rc_context({**RC, "svg.hashsalt": FILE}):
        figure = Figure(figsize=(8, 2.0), facecolor="white", layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (task, methods) in zip(panels, rows().items(), strict=True):
            for height, (name, colour) in enumerate(COLOURS.items()):
                if name in methods:
                    mean, low, high = methods[name]
                    axes.plot([low, high], [height, height], color=colour, linewidth=2, solid_capstyle="round")
                    axes.plot(mean, height, "o", color=colour, markersize=7)
            axes.set_title(task, loc="left", fontsize=9, color=PAPER.text)
            axes.set_yticks(range(len(COLOURS)), list(COLOURS), fontsize=8.5)
            axes.set_ylim(len(COLOURS) - 0.5, -0.5)
            axes.tick_params(length=0, labelsize=8.5, labelcolor=PAPER.soft)
            axes.grid(axis="x", color=PAPER.line, linewidth=0.7)
            axes.margins(x=0.12)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
        panels[1].set_xlabel("test accuracy, %", fontsize=8.5, color=PAPER.soft)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+$", "", text.getvalue(), flags=re.M)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "images"
    partial = folder / f".{FILE}.partial"
    partial.write_text(draw(), encoding="utf-8")
    partial.replace(folder / FILE)
