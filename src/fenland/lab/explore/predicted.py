"""What `fenland.theory` says about a landscape's minimum and saddle, for every cell of the explorer."""

from __future__ import annotations

import math

from fenland.lab.explore.landscapes import MOMENTA, Landscape
from fenland.lab.explore.measure import NORMALIZED, radii_of
from fenland.theory import captures, capturing_gradient, cycle_amplitude, spectrum_limit


def limits(landscape: Landscape, method: str) -> list[list[float]]:
    """The largest stable learning rate at the first minimum, by rho and momentum."""
    curvatures = landscape.curvatures(landscape.minima[0])
    return [
        [spectrum_limit(curvatures, rho, method, momentum).lr for momentum in MOMENTA]
        for rho in radii_of(landscape, method)
    ]


def amplitudes(landscape: Landscape) -> list[list[list[float]]]:
    """SAM's final distance from the first minimum, by rho, learning rate and momentum; nan past the stable range."""
    steepest = landscape.curvatures(landscape.minima[0])[-1]

    def each(rho: float, lr: float, momentum: float) -> float:
        if lr >= spectrum_limit([steepest], 0.0, "SGD", momentum).lr:
            return math.nan
        return cycle_amplitude(steepest, lr, rho, momentum)

    return [[[each(rho, lr, momentum) for momentum in MOMENTA] for lr in landscape.rates] for rho in landscape.radii]


def saddle_strength(landscape: Landscape) -> float:
    """m > 0, where -m is the least eigenvalue at the saddle (loss / w^2)."""
    if landscape.saddle is None:
        raise ValueError(f"{landscape.name} has no saddle")
    return -landscape.curvatures(landscape.saddle)[0]


def capture(landscape: Landscape, method: str) -> list[bool]:
    """By rho: whether the saddle holds the method from nearby, in the limit of small learning rates.

    The unnormalised ascent where rho*m > 1; the normalised one always, below ||g|| = rho*m; SGD never.
    """
    m = saddle_strength(landscape)
    if method == "SGD":
        return [False]
    if method in NORMALIZED:
        return [capturing_gradient(m, rho) > 0 for rho in landscape.radii]
    return [captures(m, rho) for rho in landscape.radii]
