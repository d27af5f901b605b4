"""Measurements beside closed forms."""

from __future__ import annotations

from collections.abc import Mapping

from fenland.lab.study.parts import Finding, Statement


def at_radius(rho: float) -> str:
    """A radius in words; nothing for 0, where there is no ascent."""
    return f" at rho {rho:g}" if rho else ""


def values(numbers: Mapping[float, float], form: str = ".3f", apart: str = ", ") -> str:
    """Numbers by radius."""
    return apart.join(f"{value:{form}}{at_radius(rho)}" for rho, value in numbers.items())


def near(
    law: Mapping[float, float], found: Mapping[float, float], tolerance: float, tail: str, form: str = ".3f",
    apart: str = ", ",
) -> Statement:  # fmt: skip
    """Whether the numbers found by radius are those of a law, within a tolerance that ``tail`` says."""
    holds = all(abs(law[rho] - found[rho]) <= tolerance for rho in law)
    said = Finding(values(law, form, apart) + tail, values(found, form, apart), holds)
    return lambda measured: said
