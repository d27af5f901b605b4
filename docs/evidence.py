"""Makes tables and pictures of evidence.md and evidence-runs.md from docs/records/evidence: python docs/evidence.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # where `gains` is

import tables
from matplotlib.figure import Figure

from fenland.lab.figures.style import Canvas
from fenland.lab.store.files import write_text
from gains import figure, page, plan
from gains.records import Rows

HERE = Path(__file__).parent
IMAGES = HERE / "images" / "evidence"
Picture = tuple[list[str], Callable[[Canvas], Figure], str]


def pictures(rows: Rows) -> dict[str, Picture]:
    """Those that have something to show: labels, what draws them, and what a reader who does not see them is told."""
    found: dict[str, Picture] = {}
    lines, draw = figure.gains(page.compared(rows))
    if lines:
        found["gains"] = ([figure.EPOCHS, figure.SECONDS], draw, page.ALT_GAINS)
    curves = figure.radii(rows)
    if curves:
        found["radii"] = (list(plan.CURVES), lambda canvas: figure.draw_radii(canvas, curves), page.ALT_RADII)
    return found


def main() -> int:
    """Write what the records show, and take away pictures that they do not show any more."""
    rows = Rows(tables.EVIDENCE)
    IMAGES.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for name, (labels, draw, alt) in pictures(rows).items():
        for theme in figure.INKS:
            path = IMAGES / f"{name}-{theme}.svg"
            write_text(path, figure.svg(name, theme, labels, draw, alt))
            wanted.add(path)
    for path in set(IMAGES.glob("*.svg")) - wanted:
        path.unlink()
    return tables.main(check=False)


if __name__ == "__main__":
    sys.exit(main())
