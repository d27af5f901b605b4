"""Level lines of a landscape as SVG paths, in a picture of 1000 x 760 units."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy
import torch

from fenland.lab.explore.landscapes import Landscape

WIDTH, HEIGHT = 1000, 760
_ALONG, _LEVELS = 161, 11


def paths(landscape: Landscape) -> list[str]:
    """For each level from the highest to the lowest, the region below it as the data of an SVG path."""
    from contourpy import contour_generator

    x0, x1, y0, y1 = landscape.window
    xs, ys = torch.linspace(x0, x1, _ALONG, dtype=torch.float64), torch.linspace(y0, y1, _ALONG, dtype=torch.float64)
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    points = torch.stack([x.reshape(-1), y.reshape(-1)], 1)
    values = landscape.problem.value(landscape.problem.pack(points)).reshape(_ALONG, _ALONG).numpy()
    least = float(values.min())
    # Levels at equal steps of the fourth root: close together low down, where the paths end.
    high = float(numpy.quantile(values, 0.97)) - least
    levels = [least + high * (k / _LEVELS) ** 4 for k in range(_LEVELS, 1, -1)]
    across = numpy.linspace(0, WIDTH, _ALONG)
    down = numpy.linspace(HEIGHT, 0, _ALONG)
    regions = contour_generator(across, down, values)
    return [_below(level, regions) for level in levels]


def _below(level: float, generator: Any) -> str:
    """Outlines and holes of the region below a level."""
    outlines, offsets = generator.filled(-numpy.inf, level)
    text = []
    for points, ends in zip(outlines, offsets, strict=True):
        for begin, end in pairwise(ends):
            corners = numpy.rint(points[begin : end - 1]).astype(int)
            moved = numpy.any(numpy.diff(corners, axis=0, prepend=corners[:1] - 1) != 0, axis=1)
            pairs = [f"{x} {y}" for x, y in corners[moved]]
            text.append("M" + "L".join(pairs) + "Z" if pairs else "")
    return "".join(text)
