"""Closed forms against trajectories of the optimizer's own rules."""

import pytest
import torch

from fenland import theory
from fenland.lab.replicas import MatrixSensing, Quadratic, Quartic, grid, near, run

PUBLISHED = {0.1: 0.437, 0.2: 0.348, 0.3: 0.289, 0.5: 0.216}  # USAM on the quartic (DESIGN section 8)


def line(curvature, *points):
    problem = Quadratic((curvature,))
    return problem, problem.pack(torch.tensor(points, dtype=torch.float64)[:, None])


def success(method, rho, rates):
    """Share of starts that end at a minimum of the quartic, for each learning rate."""
    problem = Quartic()
    starts = 0.7 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = run(problem, method, grid(problem.pack(starts), rho=rho, lr=rates), 1500, bound=1e3)
    at_end = near(problem, problem.minima, 1e-6)(out.w)
    return at_end.reshape(out.shape).double().mean(-1).flatten().tolist()


@pytest.mark.parametrize("method", ["SGD", "USAM", "SSAM-U"])
@pytest.mark.parametrize("curvature", [0.5, 2.0, -0.5])
def test_one_step_multiplies_by_the_factor(method, curvature):
    problem, start = line(curvature, 1.0, -0.3)
    out = run(problem, method, grid(start, rho=0.3, lr=0.2), 1)
    torch.testing.assert_close(out.w[0], theory.factor(curvature, 0.2, 0.3, method) * start[0])


@pytest.mark.parametrize("method", ["SGD", "USAM", "SSAM-U"])
def test_the_stable_learning_rate(method):
    problem, start = line(3.0, 1.0)
    limit = theory.stable_lr(3.0, 0.4, method)
    out = run(problem, method, grid(start, rho=0.4, lr=[0.99 * limit, 1.01 * limit]), 200)
    assert out.w[0][0].abs() < 1 < out.w[0][1].abs()


@pytest.mark.parametrize("rho", PUBLISHED)
def test_the_quartics_critical_learning_rate(rho):
    limit = theory.stable_lr(Quartic().curvature, rho)
    assert limit == pytest.approx(PUBLISHED[rho], abs=5e-4)
    below, above = success("USAM", rho, [limit - 0.005, limit + 0.005])
    assert below > 0
    assert above == 0


def test_sgds_limit_holds_for_stable_sam():
    limit = theory.stable_lr(Quartic().curvature, method="SGD")
    assert limit == pytest.approx(0.586, abs=5e-4)
    for method in ("SGD", "SSAM-U"):
        below, above = success(method, 0.3, [limit - 0.005, limit + 0.005])
        assert below > 0
        assert above == 0


@pytest.mark.parametrize("lr", [0.1, 0.5, 0.9])
def test_sam_ends_on_a_cycle_and_stable_sam_does_not(lr):
    problem, start = line(2.0, 1.0, -0.4)
    amplitude = theory.cycle_amplitude(2.0, lr, 0.05)
    cycle = run(problem, "SAM", grid(start, rho=0.05, lr=lr), 500, sample_every=50).samples[0][5:]
    torch.testing.assert_close(cycle.abs(), torch.full_like(cycle, amplitude), rtol=1e-8, atol=0)
    assert run(problem, "SSAM", grid(start, rho=0.05, lr=lr), 400).w[0].abs().max() < 1e-12


def test_the_normalised_ascent_is_captured_close_to_the_saddle():
    m, rho = 2.0, 0.1
    edge = theory.capturing_gradient(m, rho) / m
    problem, start = line(-m, 0.99 * edge, 1.01 * edge)
    out = run(problem, "SAM", grid(start, rho=rho, lr=0.01), 1)
    assert out.w[0][0] < start[0][0]
    assert out.w[0][1] > start[0][1]


def test_matrix_sensing_separates_the_ascents():
    """Table III lists the losses at the start and after 1, 2, 3 steps; one seed of theirs beside one of ours."""
    problem = MatrixSensing(seed=1)
    many = grid(problem.start(1, seed=1), rho=0.1, lr=0.5)
    losses = {}
    for method in ("SAM", "USAM"):
        out = run(problem, method, many, 3, sample_every=1)
        losses[method] = [problem.value([w]).item() for w in out.samples[0]]
    assert losses["SAM"] == pytest.approx([4.714, 2.81, 1.748, 1.199], rel=0.3)
    assert losses["USAM"][:2] == pytest.approx([4.872, 22.873], rel=0.3)
    assert losses["USAM"][2] > 1e6
    assert losses["USAM"][3] > 1e50


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="method"):
        theory.factor(1.0, 0.1, method="SAM")
    with pytest.raises(ValueError, match="beyond there is no cycle"):
        theory.cycle_amplitude(2.0, 1.5, 0.1)
    with pytest.raises(ValueError, match="eigenvalues"):
        theory.gamma_bounds((), 0.1)
    with pytest.raises(ValueError, match="curvature"):
        theory.stable_lr(0.0)
    with pytest.raises(ValueError, match="dynamics"):
        theory.noise_power(1.0, 0.1, "none")
