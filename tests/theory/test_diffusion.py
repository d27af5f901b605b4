"""Displacement under gradient noise: exact sums, the continuous limit, and the published gap beside ours."""

import math

import pytest
import torch

from fenland import theory
from fenland.lab.replicas import Noise, Quadratic, grid, run


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("noise", ["shared", "independent", "descent"])
@pytest.mark.parametrize("curvature", [1.0, -0.5])
def test_displacement(noise, curvature, momentum):
    problem = Quadratic((curvature,))
    start = problem.pack(torch.full((20000, 1), 0.02))
    out = run(problem, "USAM", grid(start, rho=0.4, lr=0.1, momentum=momentum), 40, noise=Noise(0.2, noise))
    wanted = theory.displacement(curvature, 0.1, 0.4, 0.2, 40, noise, 0.02, momentum)
    assert out.w[0].square().mean().item() == pytest.approx(wanted, rel=0.05)  # 5 standard errors


def test_displacement_of_torchs_nesterov():
    torch.manual_seed(3)
    w = torch.nn.Parameter(torch.zeros(40000, dtype=torch.float64))
    opt = torch.optim.SGD([w], lr=0.1, momentum=0.8, nesterov=True)
    for _ in range(30):
        w.grad = 1.3 * w.detach() + 0.2 * torch.randn_like(w)
        opt.step()
    wanted = theory.displacement(1.3, 0.1, 0.0, 0.2, 30, momentum=0.8, nesterov=True)
    assert w.detach().square().mean().item() == pytest.approx(wanted, rel=0.035)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_doubling_is_the_sum_and_ends_in_the_stationary_state(momentum):
    direct = _summed(2.0, 0.1, 0.3, 0.2, 23, momentum)
    assert theory.displacement(2.0, 0.1, 0.3, 0.2, 23, momentum=momentum) == pytest.approx(direct, rel=1e-12)
    late = theory.displacement(2.0, 0.1, 0.3, 0.2, 10**6, momentum=momentum)
    assert late == pytest.approx(theory.stationary_displacement(2.0, 0.1, 0.3, 0.2, momentum=momentum), rel=1e-9)


def _summed(curvature, lr, rho, std, steps, momentum):
    """eta^2 c^2 std^2 times the sum of squares of the impulse response, simulated."""
    a, total, w, v = theory.drive(curvature, rho), 0.0, -lr, 1.0
    for _ in range(steps):
        total += w * w
        v = momentum * v + a * w
        w -= lr * v
    return std**2 * theory.noise_power(curvature, rho, "shared") * total


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("curvature", [1.0, -1.0])
def test_the_continuous_limit(curvature, momentum):
    """Steps of 1e-6 over time 2 (per unit of learning rate): the discrete sum meets it."""
    lr, time = 1e-6, 2.0 * (1 - momentum)
    exact = theory.displacement(curvature, lr, 0.2, 0.5, round(time / lr), momentum=momentum)
    assert theory.diffusion(curvature, lr, 0.2, 0.5, time, momentum=momentum) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize(
    ("noise", "factor", "linear"), [("shared", 3, 2), ("independent", 1, 0), ("descent", 1, 0), ("full", 2, 0)]
)
def test_the_gap_and_its_series(noise, factor, linear):
    """The factor of eta*tau^2*|l|^3*rho/B at a saddle is 1 or 3 for SAM, 2 for the full gradient."""
    curve, lr, rho, batch = -1.5, 1e-3, 1e-4, 8.0
    unit = lr * rho * abs(curve) ** 3 / batch
    g1, g2 = theory.gap_series(curve, lr, rho, batch, noise)
    assert g2 == pytest.approx(factor * unit)
    assert g1 == pytest.approx(linear * lr * rho * curve * curve / batch)
    for time in (1e-3, 1e-2):
        gap = theory.displacement_gap(curve, lr, rho, batch, time, noise)
        assert gap == pytest.approx(g1 * time + g2 * time**2, rel=4 * time)


def test_the_gap_in_simulation():
    """20000 replicas with a seed in common: SGD's displacement minus SAM's, against the exact difference."""
    curve, lr, rho, steps, std = -1.0, 0.05, 0.2, 30, 0.3
    problem = Quadratic((curve,))
    start = problem.pack(torch.zeros(20000, 1))
    squares = [
        run(problem, method, grid(start, rho=rho, lr=lr), steps, noise=Noise(std, "shared", seed=5)).w[0].square()
        for method in ("SGD", "USAM")
    ]
    gap = squares[0] - squares[1]
    wanted = theory.displacement(curve, lr, 0.0, std, steps) - theory.displacement(curve, lr, rho, std, steps)
    error = gap.std().item() / math.sqrt(len(gap))
    assert abs(gap.mean().item() - wanted) < 4 * error
    assert gap.mean().item() > 10 * error


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="dynamics"):
        theory.gap_series(1.0, 0.1, 0.1, 1.0, "none")
    with pytest.raises(ValueError, match="stationary"):
        theory.stationary_displacement(-1.0, 0.1, 0.1, 1.0)
    with pytest.raises(ValueError, match="batch"):
        theory.gap_series(1.0, 0.1, 0.1, 0)


def test_what_grows_past_float64_is_infinite_and_no_error():
    """The last finite value beside it; the gap of two that both grow so has the sign of the faster one."""
    assert math.isfinite(theory.diffusion(-1.0, 0.1, 0.0, 1.0, 300.0))
    assert theory.diffusion(-1.0, 0.1, 0.0, 1.0, 1000.0) == math.inf
    assert theory.displacement(-1.0, 0.1, 0.0, 1.0, 3000) > 1e200
    for momentum in (0.0, 0.9):
        assert theory.displacement(-1.0, 0.1, 0.0, 1.0, 100_000, momentum=momentum) == math.inf
        assert theory.displacement(-1.0, 0.1, 0.0, 0.0, 100_000, start=1.0, momentum=momentum) == math.inf
        assert theory.displacement(-1.0, 0.1, 0.0, 0.0, 100_000, momentum=momentum) == 0.0
    assert theory.displacement(1.0, 5.0, 0.0, 1.0, 10_000) == math.inf
    assert theory.displacement_gap(-1.0, 0.1, 0.1, 8.0, 1000.0) == math.inf
    assert theory.displacement_gap(-1.0, 0.1, 0.0, 8.0, 1000.0) == 0.0
    assert theory.displacement_gap(-1.0, 0.1, 2.5, 8.0, 1000.0, "full") == -math.inf
