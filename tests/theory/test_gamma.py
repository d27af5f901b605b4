"""Bounds of gamma against the real optimizer's record."""

import math

import pytest
import torch

import fenland
from fenland import theory


def gammas(function, starts, rho, normalize):
    """(gamma, ||g||) of one SSAM step from each start, as the optimizer's record says."""
    seen = []
    for start in starts:
        w = torch.nn.Parameter(start.clone())
        opt = fenland.SSAM(torch.optim.SGD([w], lr=0.0), rho=rho, normalize=normalize)

        def closure(w=w, opt=opt):
            opt.zero_grad()
            loss = function(w)
            loss.backward()
            return loss

        opt.step(closure)
        seen.append((opt.last.gamma.item(), opt.last.grad_norm.item()))
    return seen


STARTS = torch.randn(60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
L = torch.tensor([4.0, 0.5, -1.0], dtype=torch.float64)


def test_on_quadratics_and_where_the_bounds_are_met():
    low, high = theory.gamma_bounds(L.tolist(), 0.3)
    seen = [gamma for gamma, _ in gammas(lambda w: (L * w * w).sum() / 2, STARTS, 0.3, False)]
    assert low <= min(seen) <= max(seen) <= high
    along = torch.eye(3, dtype=torch.float64)
    met = [gamma for gamma, _ in gammas(lambda w: (L * w * w).sum() / 2, along, 0.3, False)]
    assert (min(met), max(met)) == pytest.approx((low, high))
    # the normalised ascent: the same with rho / ||g||
    for gamma, norm in gammas(lambda w: (L * w * w).sum() / 2, STARTS, 0.3, True):
        low, high = theory.gamma_bounds(L.tolist(), 0.3 / norm)
        assert low <= gamma <= high


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rho", [0.05, 0.3, 2.0])
def test_on_smooth_functions(normalize, rho):
    """log cosh is convex with Hessian in (0, 1]; cos has it in [-1, 1]."""
    for function, convexity in (
        (lambda w: torch.log(torch.cosh(w)).sum(), 0.0),
        (lambda w: torch.cos(w).sum(), None),
        (lambda w: torch.log(torch.cosh(w)).sum() * 0.7 + 0.15 * (w * w).sum(), 0.3),
    ):
        for gamma, norm in gammas(function, STARTS, rho, normalize):
            low, high = theory.gamma_smooth(1.0, rho, norm if normalize else None, convexity)
            assert low - 1e-12 <= gamma <= high + 1e-12


def test_it_vanishes_at_a_minimum_and_wrong_arguments_are_named():
    assert theory.gamma_normalized(0.05, 0.05) == 0.5
    assert theory.gamma_bounds((-2.0,), 0.5) == (math.inf, math.inf)
    assert theory.gamma_smooth(2.0, 1.0) == (1 / 3, math.inf)
    for wrong, message in (
        (lambda: theory.gamma_bounds((), 0.1), "eigenvalues"),
        (lambda: theory.gamma_smooth(0.0, 0.1), "smoothness"),
        (lambda: theory.gamma_smooth(1.0, 0.1, 0.0), "grad_norm"),
        (lambda: theory.gamma_smooth(1.0, 0.1, None, 2.0), "convexity"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
