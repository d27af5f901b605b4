"""Trajectories as text: 16-bit numbers, differences from step to step, compressed, in base64.

Layout of a landscape's blob, once it is inflated: 16-bit integers, all low bytes before all high bytes. For each method
and each trajectory in the order of `Measured` come its planes, one number a step: x, y, and (where there is an ascent)
the ascent point's x and y less the point's own. Each number is the difference to that of the step before, modulo 2^16.
A summed-up number q stands for middle + q / 32767 * half; q = -32768 is a point farther off than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from fenland.lab.explore.landscapes import Point
from fenland.lab.report.packed import packed

if TYPE_CHECKING:
    import numpy.typing

    Integers = numpy.typing.NDArray[numpy.int16]
    Floats = numpy.typing.NDArray[numpy.float64]

FULL, BEYOND = 32767, -32768


def quantise(points: Any, middle: Point, half: Point) -> Integers:
    """Points (..., 2) as integers; both coordinates are BEYOND where either is."""
    scaled: Floats = (numpy.asarray(points, dtype=numpy.float64) - middle) / half * FULL
    inside = (numpy.isfinite(scaled) & (numpy.abs(scaled) <= FULL)).all(-1, keepdims=True)
    return numpy.where(inside, numpy.rint(numpy.where(inside, scaled, 0.0)), BEYOND).astype(numpy.int16)


def planes(path: Integers, ascent: Integers | None) -> Integers:
    """(trajectory, plane, step) of points (..., step, 2)."""
    steps = path.shape[-2]
    parts = [path] if ascent is None else [path, ascent - path]
    stacked = numpy.concatenate([each.reshape(-1, steps, 2) for each in parts], -1).transpose(0, 2, 1)
    return numpy.diff(stacked, axis=-1, prepend=numpy.int16(0))


def encode(parts: Sequence[Integers]) -> str:
    """The blob of a landscape."""
    flat = numpy.concatenate([each.reshape(-1) for each in parts]).astype("<i2")
    shuffled = flat.view(numpy.uint8).reshape(-1, 2).T.tobytes()
    return packed(shuffled)
