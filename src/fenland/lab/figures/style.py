"""The look of every figure: colours, line styles, sizes and a bare pair of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

# A phone shows these points at about one pixel each, so that text stays as large as it is set here.
WIDTH, HEIGHT = 320, 215
TEXT, SMALL, ROW = 10.0, 9.5, 13.5
RC: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same files on every machine
    "font.size": TEXT,
    "svg.fonttype": "none",  # real text: selectable, in the page's font, and no glyph ids that collide
    "svg.hashsalt": "fenland",
    "pdf.fonttype": 42,  # TrueType: conferences refuse matplotlib's default, Type 3
    "axes.unicode_minus": True,
}
# Okabe and Ito's colours (jfly.uni-koeln.de/color); where one falls below a contrast of 3:1 on the page it is darkened
# (light page) or lightened (dark page) within its hue. Yellow is left out: no tone of it reads on white.
LIGHT = ("#0072b2", "#d55e00", "#008561", "#b0578d", "#b57b00", "#2b8cc4", "#444444")
DARK = ("#56b4e9", "#f0803c", "#2fc79b", "#dd93bd", "#e6ad3a", "#9ad1f2", "#c4c4c4")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 3)), (0, (3, 1, 1, 1)))


@dataclass(frozen=True)
class Ink:
    """Colours to draw with."""

    text: str  # labels
    soft: str  # tick labels and secondary marks
    line: str  # axes and grid
    page: str  # behind the figure
    series: tuple[str, ...]  # one a label, in order


PAPER = Ink("#1d2329", "#56606b", "#d5dae0", "#ffffff", LIGHT)
# Stand-ins that no figure uses otherwise; the page's SVG gets CSS variables in their place (svg.py).
MARKED = Ink("#0a0c01", "#0a0c02", "#0a0c03", "#0a0c04", tuple(f"#0a0b{i:02x}" for i in range(len(LIGHT))))
VARIABLES = {MARKED.text: "--ink", MARKED.soft: "--soft", MARKED.line: "--line", MARKED.page: "--card"} | {
    mark: f"--series-{index}" for index, mark in enumerate(MARKED.series)
}
FALLBACK = dict(
    zip(VARIABLES, (PAPER.text, PAPER.soft, PAPER.line, PAPER.page, *PAPER.series), strict=True)
)  # for an SVG that is taken out of the page


@dataclass(frozen=True)
class Canvas:
    """How to draw: with which colours, for which labels, and with the title inside (files) or above (page)."""

    ink: Ink
    labels: Sequence[str]
    titled: bool = False

    def look(self, label: str) -> dict[str, Any]:
        """Colour and line style of a label, the same in every figure."""
        index = self.labels.index(label)
        return {
            "color": self.ink.series[index % len(self.ink.series)],
            "linestyle": DASHES[(index + index // len(self.ink.series)) % len(DASHES)],
        }


def title_of(label: str) -> str:
    """A label as people write it: ``ssam (rho=0.1)`` becomes ``SSAM (rho=0.1)``."""
    from fenland.lab.training.optimizers import OPTIMIZERS  # it imports torch, which a figure does not need otherwise

    name, *rest = label.split(" ", 1)
    return " ".join([OPTIMIZERS[name].title if name in OPTIMIZERS else name, *rest])


def blank(canvas: Canvas, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure that belongs to no pyplot state, with calm axes: a baseline, a light grid, ticks without marks."""
    figure, (axes,) = blanks(canvas, height)
    return figure, axes


def blanks(
    canvas: Canvas, height: float = HEIGHT, rows: int = 1, columns: int = 1, headroom: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """The same with several axes, row by row, which leave ``headroom`` points of the height for what is above them."""
    layout = ConstrainedLayoutEngine(w_pad=3 / 72, h_pad=3 / 72, rect=(0, 0, 1, 1 - headroom / height))
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout=layout)
    figure.set_facecolor("none")
    every = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    for axes in every:
        _calm(axes, canvas)
    return figure, every


def _calm(axes: Axes, canvas: Canvas) -> None:
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(canvas.ink.soft)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.tick_params(which="both", length=0, labelcolor=canvas.ink.soft, labelsize=SMALL, pad=5)
    axes.grid(axis="y", color=canvas.ink.line, linewidth=0.7)
    axes.set_axisbelow(True)


def _legend_shape(shown: Sequence[str]) -> tuple[int, int]:
    """Rows and columns of a legend that fits the width."""
    if not shown:
        return 0, 0
    widest = max(len(title_of(label)) for label in shown)
    columns = max(1, min(len(shown), int((WIDTH - 30) // (38 + 5.9 * widest))))
    return -(-len(shown) // columns), columns


def legend_height(shown: Sequence[str]) -> float:
    """How much taller a figure has to be for a legend of more than one row, in points."""
    return ROW * max(0, _legend_shape(shown)[0] - 1)


def head(axes: Axes, canvas: Canvas, title: str, shown: Sequence[str]) -> None:
    """Legend above the axes, where it covers no data, and for a file the title above the legend."""
    rows = _legend_shape(shown)[0]
    if shown:
        _legend(axes, canvas, shown, loc="lower left", bbox_to_anchor=(0, 1))
    if canvas.titled:
        # Not bold: a second font would double the time that embedding takes in a PDF.
        axes.set_title(title, loc="left", fontsize=TEXT + 1, color=canvas.ink.text, pad=7 + ROW * rows)


def headroom_of(canvas: Canvas, shown: Sequence[str]) -> float:
    """The points that `head_all` needs."""
    return (ROW + 8.0 if canvas.titled else 0.0) + (ROW + 2) * _legend_shape(shown)[0]


def head_all(figure: Figure, canvas: Canvas, title: str, shown: Sequence[str]) -> None:
    """The same for a figure of several axes: at its top, in the room that they left."""
    below = (ROW + 6.0) / (72 * figure.get_figheight()) if canvas.titled else 0.0
    if shown:
        legend = _legend(figure, canvas, shown, loc="upper left", bbox_to_anchor=(0, 1 - below))
        legend.set_in_layout(False)
    if canvas.titled:
        figure.text(0.01, 0.995, title, ha="left", va="top", fontsize=TEXT + 1, color=canvas.ink.text)


def _legend(where: Axes | Figure, canvas: Canvas, shown: Sequence[str], **place: Any) -> Any:
    names = [title_of(label) for label in shown]
    handles = [Line2D([], [], linewidth=1.8, **canvas.look(label)) for label in shown]
    legend = where.legend(
        handles, names, ncols=_legend_shape(shown)[1], frameon=False, borderaxespad=0.2, borderpad=0.2,
        handlelength=2.3, handletextpad=0.6, columnspacing=1.4, labelspacing=0.35, fontsize=SMALL, **place,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_color(canvas.ink.text)
    return legend


def name_x(axes: Axes, canvas: Canvas, text: str, end: Literal["left", "right"] = "right") -> None:
    """Name the horizontal axis at one of its ends."""
    axes.set_xlabel(text, loc=end, fontsize=SMALL, color=canvas.ink.soft, labelpad=3)


def dash_array(index: int) -> str:
    """The line style of the label at ``index`` as an SVG ``stroke-dasharray``, for the page's own keys."""
    dashes = DASHES[(index + index // len(LIGHT)) % len(DASHES)]
    return "none" if dashes == "-" else " ".join(f"{1.8 * length:.3g}" for length in dashes[1])
