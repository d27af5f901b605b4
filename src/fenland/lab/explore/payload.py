"""Everything that the page looks up, as one document of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fenland.lab.explore import contours, predicted
from fenland.lab.explore.landscapes import MOMENTA, Landscape
from fenland.lab.explore.measure import METHODS, SHOWN, STARTS, Measured
from fenland.lab.explore.pack import encode, planes, quantise
from fenland.presets import PRESETS
from fenland.theory import capturing_gradient

_DIGITS = 4


def payload(landscapes: Sequence[Landscape], found: Mapping[tuple[str, str], Measured]) -> dict[str, Any]:
    """The document of the page; arrays are nested in the order rho, learning rate, momentum."""
    return {
        "momenta": MOMENTA,
        "steps": SHOWN,
        "starts": STARTS,
        "width": contours.WIDTH,
        "height": contours.HEIGHT,
        "methods": [{"name": name, "rule": _rule(name)} for name in METHODS],
        "landscapes": [_landscape(each, {name: found[each.name, name] for name in METHODS}) for each in landscapes],
    }


def _rule(name: str) -> str:
    return "d = g" if name == "SGD" else PRESETS[name].equation


def _landscape(landscape: Landscape, found: Mapping[str, Measured]) -> dict[str, Any]:
    middle, half = landscape.spread
    blob = encode([_planes(each, landscape) for each in found.values()])
    content: dict[str, Any] = {
        name: getattr(landscape, name)
        for name in ("name", "title", "formula", "about", "window", "minima", "saddle", "starts", "radii", "rates")
    }
    content |= {
        "runSteps": landscape.steps, "tolerance": landscape.tolerance, "home": landscape.home,
        "middle": middle, "half": half, "levels": contours.paths(landscape), "blob": blob,
        "curvatures": plain(landscape.curvatures(landscape.minima[0])),
        "methods": {name: _numbers(landscape, name, each) for name, each in found.items()},
    }  # fmt: skip
    if landscape.saddle is not None:
        m = predicted.saddle_strength(landscape)
        content["strength"] = plain(m)
        content["product"] = plain([capturing_gradient(m, rho) for rho in landscape.radii])
    return content


def _planes(found: Measured, landscape: Landscape) -> Any:
    middle, half = landscape.spread
    ascent = None if found.ascent is None else quantise(found.ascent.numpy(), middle, half)
    return planes(quantise(found.path.numpy(), middle, half), ascent)


def _numbers(landscape: Landscape, method: str, found: Measured) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "success": found.success,
        "distance": found.distance,
        "limit": found.limit,
        "predicted": predicted.limits(landscape, method),
    }
    if found.held is not None:
        numbers |= {"held": found.held, "capture": predicted.capture(landscape, method)}
    if method == "SAM":
        numbers["amplitude"] = predicted.amplitudes(landscape)
    return {name: plain(each) for name, each in numbers.items()}


def plain(value: Any) -> Any:
    """Lists of numbers of a few digits; what is not finite becomes null."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
