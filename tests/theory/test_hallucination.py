"""Where normalised SAM ends on 1 - cos(w), against its own steps."""

import math
from dataclasses import replace

import pytest
import torch

from fenland import theory
from fenland.lab.replicas import Wave, grid, run, spread
from fenland.lab.replicas.rules import rule
from fenland.rules import Window

STARTS, LR = 400, 0.05


def ends(rho, method="SAM", steps=1000):
    """|w| within the period, from starts spread over it."""
    w = run(Wave(), method, grid([spread(-math.pi, math.pi, STARTS)], rho=rho, lr=LR), steps).w[0]
    return (torch.remainder(w + math.pi, 2 * math.pi) - math.pi).abs()


@pytest.mark.parametrize("rho", [0.5, 2.0, 3.0, 3.5, 5.0, 7.0, 9.0, 10.0])
def test_shares_of_the_starts(rho):
    found, fates = ends(rho), theory.cosine_fates(rho)
    stall = theory.cosine_stall(rho)
    r = rho % (2 * math.pi)
    band = 1.5 * LR * r  # of the cycles around minimum and maximum
    assert fates.minimum + fates.maximum + fates.hallucinated == pytest.approx(1.0)
    if stall is None:
        assert fates.hallucinated == 0.0
        assert (found < band).double().mean().item() == pytest.approx(fates.minimum, abs=0.02)
        assert (found > math.pi - band).double().mean().item() == pytest.approx(fates.maximum, abs=0.02)
    else:
        assert fates.hallucinated == 1.0
        assert torch.allclose(found, torch.full_like(found, stall), atol=1e-9)
        assert math.sin(stall) != pytest.approx(0.0, abs=1e-2)  # no critical point
        assert math.sin(stall + r) == pytest.approx(0.0, abs=1e-9)  # but its ascent point is one


def test_the_figures_that_were_known():
    assert theory.cosine_fates(1.5 * math.pi) == theory.Fates(minimum=0.0, maximum=0.0, hallucinated=1.0)
    assert theory.cosine_fates(2.0).maximum == pytest.approx(0.64, abs=0.005)
    assert theory.cosine_fates(3.5).hallucinated == 1.0
    assert theory.cosine_stall(3.0) is None


@pytest.mark.parametrize(("rho", "cured"), [(2.0, True), (3.0, True), (3.5, False)])
def test_starting_without_the_ascent(rho, cured):
    """It helps as long as the minimum itself holds SAM: below rho = pi."""
    sam = rule("SAM")
    late = replace(sam, when=Window(300), name="late SAM")
    found = ends(rho, late, 1200)
    assert bool((found < 1.5 * LR * rho).all()) == cured
    if not cured:
        assert torch.allclose(found, torch.full_like(found, 2 * math.pi - rho), atol=1e-6)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="rho = 0"):
        theory.cosine_fates(0.0)
    with pytest.raises(ValueError, match="rho = -1"):
        theory.cosine_stall(-1.0)
