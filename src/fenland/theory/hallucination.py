r"""Hallucinated minimisers: points where the normalised ascent stalls though the loss still falls.

w is one where h = grad L(w + rho*g/||g||) = 0 and g = grad L(w) is not: the ascent climbs over a maximum and stands in
another minimum, whose gradient is 0. Source: Park, Jang, Ryu, Yang 2025, arXiv 2509.21818.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fenland.theory.momentum import check_positive


@dataclass(frozen=True)
class Fates:
    """Shares of the starts, uniform over a period; they sum to 1.

    Attributes:
        minimum: that end at the minimum.
        maximum: that the maximum draws in.
        hallucinated: that stall where L is neither.
    """

    minimum: float
    maximum: float
    hallucinated: float


def cosine_fates(rho: float) -> Fates:
    r"""Where normalised SAM ends on L(w) = 1 - cos(w), by its flow w' = -sin(w + rho) on (0, pi), mirrored below 0.

    With r = rho mod 2*pi: for r < pi the zero w + r = pi repels, so starts beyond pi - r are driven up to the maximum,
    a share r/pi, and the others reach the minimum. For r > pi the zero w + r = 2*pi attracts everything: w = 2*pi - r
    with slope |sin(r)|, no critical point of L; its ascent point is the next minimum. There is none below rho = pi, the
    distance from a minimum to a maximum. Steps of SAM have the same shares for eta < 2 but for O(eta) near the border.

    A start without ascents helps where r < pi, as the minimum holds SAM; past pi the minimum itself repels it. Derived.

    Args:
        rho: radius (unit of w), no multiple of pi.
    """
    check_positive("rho", rho)
    r = math.fmod(rho, 2 * math.pi)
    return Fates(0.0, 0.0, 1.0) if r > math.pi else Fates(1 - r / math.pi, r / math.pi, 0.0)


def cosine_stall(rho: float) -> float | None:
    r"""|w| = 2*pi - (rho mod 2*pi), the hallucinated minimiser of `cosine_fates` (unit of w); None where there is none.

    Attracting for 0 < eta < 2, since h = sin(w + rho) has slope 1 there. Derived.

    Args:
        rho: radius (unit of w).
    """
    check_positive("rho", rho)
    r = math.fmod(rho, 2 * math.pi)
    return 2 * math.pi - r if r > math.pi else None
