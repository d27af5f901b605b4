"""The picture of a record: one bar a method, its cost in floors, for one parameter set and base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fenland.lab.bench.timing import Row
from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.files import save_files
from fenland.lab.figures.style import SMALL, Canvas, blank, head, name_x
from fenland.lab.figures.svg import inline_svg
from fenland.lab.store.files import write_text

KINDS = ("fenland", "others")


def drawn(name: str, base: str, rows: dict[str, Row]) -> Drawn:
    """The figure of one set and base."""
    title = f"Step on {name}, {base}"
    shown = {who: row for who, row in rows.items() if "floors" in row}
    worst = max(shown, key=lambda who: shown[who]["floors"])
    words = ", ".join(f"{who} {row['floors']:.2f}" for who, row in shown.items())
    return Drawn(
        f"step-{name}-{base}",
        title,
        "Time beyond the base's own step, in multiples of the passes that memory allows; the bar is the median, the "
        "thin line half of the interquartile range to each side.",
        f"Bars. {words}. The longest is {worst}.",
        lambda canvas: _bars(canvas, title, shown, rows["floor"]["ms"]),
    )


def _bars(canvas: Canvas, title: str, rows: dict[str, Row], floor: float) -> Figure:
    figure, axes = blank(canvas, 70 + 15.0 * len(rows))
    axes.grid(visible=False)
    axes.grid(axis="x", color=canvas.ink.line, linewidth=0.7)
    for place, (who, row) in enumerate(rows.items()):
        kind = KINDS[who.startswith(("pip", "textbook", "bare"))]
        color, cost, spread = canvas.look(kind)["color"], row["floors"], row["spread_ms"] / floor
        axes.barh(place, cost, height=0.62, color=color, alpha=0.85)
        axes.plot([cost - spread, cost + spread], [place, place], color=canvas.ink.text, linewidth=0.9)
        axes.text(max(cost + spread, 0), place, f" {cost:.2f}", va="center", fontsize=SMALL, color=canvas.ink.soft)
    axes.axvline(1, color=canvas.ink.soft, linewidth=0.9, linestyle=(0, (2, 2)))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    right = axes.get_xlim()[1]
    axes.set_xlim(min(0, axes.get_xlim()[0]), right * 1.12)
    name_x(axes, canvas, "floors beyond the base's step")
    head(axes, canvas, title, KINDS)
    return figure


def save(record: dict[str, Any], folder: Path) -> list[Path]:
    """Write PNG, PDF and SVG of every set and base of a record into a folder."""
    paths = []
    for name, bases in record["sets"].items():
        for base, rows in bases.items():
            figure = drawn(name, base, rows)
            paths += save_files(figure, list(KINDS), folder)
            path = folder / f"{figure.name}.svg"
            write_text(path, inline_svg(figure, list(KINDS)))
            paths.append(path)
    return paths
