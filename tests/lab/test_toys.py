"""The papers' small functions: gradients are autograd's, and critical points are where their docstrings say."""

import pytest
import torch

from fenland.lab.replicas import Neuron, SquareNeuron, UnequalWells, Wave, grid, run, spread


@pytest.mark.parametrize(
    "problem", [Neuron(), Wave(), UnequalWells(), UnequalWells(1.0, 5.0), SquareNeuron(), SquareNeuron(2.0)]
)
def test_gradients(problem):
    draws = torch.Generator().manual_seed(3)
    w = [torch.randn(50, generator=draws, dtype=torch.float64).requires_grad_() for _ in problem.shapes]
    wanted = torch.autograd.grad(problem.value(w).sum(), w)
    for ours, theirs in zip(problem.gradient(w), wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def hessian(problem, *point):
    at = torch.tensor(point, dtype=torch.float64)
    return torch.autograd.functional.hessian(lambda w: problem.value([x[None] for x in w]).sum(), at)


def test_critical_points():
    assert torch.allclose(hessian(Neuron(), 0.0, 3.0), torch.diag(torch.tensor([9.0, 0.0], dtype=torch.float64)))
    assert torch.allclose(hessian(SquareNeuron(), 0.0, 0.5), torch.diag(torch.tensor([-3.0, 0.0], dtype=torch.float64)))
    wells = UnequalWells(3.0, 4.0)
    assert [float(wells.gradient([torch.tensor(float(x))])[0]) for x in (0, 3, 4)] == [0, 0, 0]
    assert [float(hessian(wells, float(x))) > 0 for x in (0, 3, 4)] == [True, False, True]
    with pytest.raises(ValueError, match=r"b = 5.0, a = 4.0"):
        UnequalWells(5.0, 4.0)


def test_the_square_neuron_is_a_network_on_data():
    """(v*(u*x)^2 - x^2)^2 / 2 over inputs, with their own fourth moment."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, v = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-0.4], dtype=torch.float64)
    loss = (v * (u * x) ** 2 - x**2).square().mean() / 2
    assert SquareNeuron(float((x**4).mean())).value([u, v]).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize(("b", "a", "rho"), [(3.0, 4.0, 1.5), (3.0, 4.0, 2.5), (2.0, 3.0, 1.2)])
def test_sam_stalls_beside_a_minimum_that_holds_it(b, a, rho):
    """a - b < rho < b: starts of (b - rho, a) stall at a - rho, no critical point; those of (0, b - rho) reach 0."""
    wells = UnequalWells(b, a)
    starts = spread(0.0, a, 200)
    end = run(wells, "SAM", grid([starts], rho=rho, lr=0.005), 3000).w[0]
    stalls = starts > b - rho
    assert torch.allclose(end[stalls], torch.full_like(end[stalls], a - rho), atol=1e-6)
    assert (end[~stalls].abs() < b - rho).all()  # its cycle
    assert abs(float(wells.gradient([torch.tensor(a - rho)])[0])) > 0.4
    assert abs(float(wells.gradient([torch.tensor(a)])[0])) < 1e-9  # the ascent point


def test_spread():
    assert spread(0.0, 1.0, 4).tolist() == [0.125, 0.375, 0.625, 0.875]
