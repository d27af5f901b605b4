"""Saddles: capture, escape and growth against replicas of the optimizer's own rules."""

import math

import pytest
import torch
from quadratic_paths import path

from fenland import theory
from fenland.lab.replicas import Quadratic, grid, run


def near_saddle(strength, *points):
    problem = Quadratic((-strength,))
    return problem, problem.pack(torch.tensor(points, dtype=torch.float64)[:, None])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("method", ["SGD", "USAM", "SSAM-U"])
def test_escape_takes_as_many_steps(method, momentum):
    problem, start = near_saddle(1.0, 1e-4)
    many = grid(start, rho=0.6, lr=0.01, momentum=momentum)
    wanted = math.ceil(theory.escape_steps(1.0, 0.01, 1e-4, 1.0, 0.6, method, momentum))
    out = run(problem, method, many, wanted + 10, reached=lambda w: w[0].abs() >= 1.0)
    assert out.first_hit.item() == wanted


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_escape_with_nesterov(rho):
    norms = path([-1.0], "USAM" if rho else "SGD", 0.05, rho, {"momentum": 0.9, "nesterov": True}, 200, [1e-3])
    wanted = theory.escape_steps(1.0, 0.05, 1e-3, 1.0, rho, "USAM", 0.9, nesterov=True)
    assert next(k for k, x in enumerate(norms, 1) if x >= 1.0) == math.ceil(wanted)


def test_escape_is_slower_by_the_published_order_and_momentum_mends_it():
    """One mode: SAM needs 1/(1 - rho*m) times SGD's steps; mu = 0.9 needs about a tenth (of small steps)."""
    plain, slowed = (theory.escape_steps(1.0, 1e-4, 1e-4, 1.0, rho) for rho in (0.0, 0.6))
    assert slowed / plain == pytest.approx(1 / 0.4, rel=1e-3)
    assert plain / theory.escape_steps(1.0, 1e-4, 1e-4, 1.0, momentum=0.9) == pytest.approx(10, rel=0.02)
    assert theory.escape_steps(1.0, 0.1, 1e-4, 1.0, 1.5) == math.inf
    assert theory.escape_steps(1.0, 0.1, 1.0, 0.5) == 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("method", ["USAM", "SSAM-U"])
@pytest.mark.parametrize("rho", [0.4, 0.6])
def test_the_saddle_captures_past_its_threshold(method, rho, momentum):
    problem, start = near_saddle(2.0, 1e-3)
    out = run(problem, method, grid(start, rho=rho, lr=0.05, momentum=momentum), 200)
    assert (out.w[0].abs().item() < 1e-3) == theory.captures(2.0, rho)
    assert (theory.escape_growth(2.0, 0.05, rho, method, momentum) <= 1) == theory.captures(2.0, rho)


@pytest.mark.parametrize("method", ["SAM", "SSAM"])
@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_radius_of_capture(method, strength):
    rho = 0.1
    edge = theory.capture_radius(rho)
    problem, start = near_saddle(strength, 0.98 * edge, 1.02 * edge)
    out = run(problem, method, grid(start, rho=rho, lr=0.05), 2000, bound=1e3)
    assert out.w[0][0].abs() < edge < out.w[0][1].abs()
    if method == "SSAM":
        assert out.w[0][0].abs() < 1e-10


def test_captured_sam_wanders_in_its_band():
    strength, rho, lr = 2.0, 0.1, 0.1
    band = theory.capture_band(strength, lr, rho)
    problem, start = near_saddle(strength, 0.09, 0.01, -0.03, 0.001)
    late = run(problem, "SAM", grid(start, rho=rho, lr=lr), 2000, sample_every=1).samples[0][500:]
    assert late.abs().max() <= band * (1 + 1e-9)
    assert late.abs().max() > 0.9 * band
    with pytest.raises(ValueError, match="gets out"):
        theory.capture_band(2.0, 0.6, rho)


@pytest.mark.parametrize("part", [0.9, 1.1])
def test_a_steep_direction_frees_sam(part):
    """Beside l = 4 at lr 0.2 the cycle's gradient is eta*l^2*rho/(2 - eta*l) = rho * 2.667: weaker saddles let go."""
    curve, lr, rho = 4.0, 0.2, 0.05
    m = part * lr * curve * curve / (2 - lr * curve)
    problem = Quadratic((curve, -m))
    start = problem.pack(torch.tensor([[theory.cycle_amplitude(curve, lr, rho), 1e-6]], dtype=torch.float64))
    out = run(problem, "SAM", grid(start, rho=rho, lr=lr), 400, bound=1e3)
    assert (out.w[1].abs().item() < 1e-6) == theory.held_beside(m, curve, lr) == (part > 1)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="strength"):
        theory.captures(-1.0, 0.1)
    with pytest.raises(ValueError, match=r"lr = 1\.0"):
        theory.held_beside(1.0, 2.0, 1.0)
    with pytest.raises(ValueError, match="start"):
        theory.escape_steps(1.0, 0.1, 0.0, 1.0)
