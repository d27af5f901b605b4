"""A figure as PNG for slides and PDF for papers."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from fenland.lab.figures.catalog import Drawn
from fenland.lab.figures.style import PAPER, RC, Canvas
from fenland.lab.store.files import writing

DPI = 200
# No dates and no versions: the same records give the same bytes.
METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}}


def save_files(drawn: Drawn, labels: list[str], folder: Path) -> list[Path]:
    """Write ``folder/NAME.png`` and ``folder/NAME.pdf`` on white, each whole or not at all.

    Args:
        drawn: the figure.
        labels: the labels of its lines, in the order of colours.
        folder: where the files go; it is made if it is missing.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(RC):
        figure = drawn.draw(Canvas(PAPER, labels, titled=True))
        for kind, metadata in METADATA.items():
            path = folder / f"{drawn.name}.{kind}"
            with writing(path) as file:
                figure.savefig(file, format=kind, dpi=DPI, facecolor=PAPER.page, metadata=metadata)
            paths.append(path)
    return paths
