"""The edge of stability: against the printed formula, the inverse of stable_lr, real steps, and the single neuron."""

import math

import pytest
import torch

import fenland
from fenland import theory
from fenland.lab.replicas import Neuron, grid, run

BASES = [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.5}]


@pytest.mark.parametrize("rho", [1e-9, 0.05, 0.5, 10.0])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 30.0])
def test_long_and_bartletts_formula(rho, norm):
    lr = 0.03
    printed = norm / (2 * rho) * (math.sqrt(1 + 8 * rho / (lr * norm)) - 1)
    tolerance = 1e-9 if rho > 1e-6 else 1e-3  # the printed form cancels for small radii
    assert theory.edge_curvature(lr, rho, "SAM", norm) == pytest.approx(printed, rel=tolerance)
    assert theory.edge_curvature(lr, rho, "SAM", norm) < theory.edge_curvature(lr) == pytest.approx(2 / lr)
    assert theory.edge_curvature(lr, 0.0, "SAM", norm) == theory.edge_curvature(lr)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("method", "rho"), [("SGD", 0.0), ("USAM", 0.05), ("USAM", 2.0), ("SSAM-U", 0.3)])
def test_it_is_the_inverse_of_the_stable_learning_rate(method, rho, base):
    for lr in (1e-3, 0.1, 1.0):
        edge = theory.edge_curvature(lr, rho, method, **base)
        assert theory.stable_lr(edge, rho, method, **base) == pytest.approx(lr, rel=1e-9)


@pytest.mark.parametrize("make", [fenland.SAM, fenland.SSAM])
def test_a_step_of_sam_and_ssam_at_the_edge(make):
    """Two modes, g mostly along the flat one: at the edge a step turns the steep coordinate round, w -> -w."""
    lr, rho, flat = 0.1, 0.3, 0.5
    norm = 1.0
    gamma = None
    for _ in range(40):  # SSAM's edge needs gamma there, gamma needs the edge: iterated to their common value
        name = "SAM" if make is fenland.SAM else "SSAM"
        edge = theory.edge_curvature(lr, rho, name, norm, gamma)
        curvature = torch.tensor([flat, edge], dtype=torch.float64)
        w = torch.nn.Parameter(torch.tensor([norm / flat, 1e-9], dtype=torch.float64))
        opt = make(torch.optim.SGD([w], lr=lr), rho=rho)
        opt.step(lambda curvature=curvature, w=w, opt=opt: closure(opt, (curvature * w * w).sum() / 2))
        gamma = float(opt.last.gamma) if name == "SSAM" else None
    assert w[1].item() == pytest.approx(-1e-9, rel=1e-6)
    assert edge < 2 / lr
    if gamma is not None:
        assert edge > theory.edge_curvature(lr, rho, "SAM", norm)


@pytest.mark.parametrize(
    ("method", "rho", "wanted"), [("SGD", 0.0, 40.0), ("USAM", 0.05, 20.0), ("USAM", 0.2, 11.861), ("SSAM-U", 0.2, 40)]
)
def test_where_the_single_neuron_ends(method, rho, wanted):
    lr, start = 0.05, [torch.tensor([x], dtype=torch.float64) for x in (0.1, 8.0)]
    assert theory.neuron_end(lr, rho, method) == pytest.approx(wanted, abs=1e-3)
    x, y = run(Neuron(), method, grid(start, rho=rho, lr=lr), 2500).w
    assert abs(x.item()) < 1e-2
    assert 0.98 * wanted < y.item() ** 2 < wanted


def test_the_normalised_ascent_takes_the_neuron_further():
    """SAM's y^2 falls by about 2*eta*rho^2 of itself a step, below every edge; SSAM stays where GD ends."""
    lr, rho = 0.05, 0.2
    start = [torch.tensor([x], dtype=torch.float64) for x in (0.1, 8.0)]
    out = run(Neuron(), "SAM", grid(start, rho=rho, lr=lr), 2500, sample_every=500)
    squares = out.samples[1][:, 0].square()
    assert squares[-1] < 0.2 < theory.neuron_end(lr, rho, "USAM")
    rates = (squares[2:-1] / squares[3:]).log() / 500 / (2 * lr * rho**2)
    assert 0.7 < float(rates.min()) <= float(rates.max()) < 1.5
    stable = run(Neuron(), "SSAM", grid(start, rho=rho, lr=lr), 2500).w[1].item() ** 2
    assert 0.97 * 40 < stable < 40 == pytest.approx(theory.neuron_end(lr, rho, "SSAM"))
    assert theory.neuron_end(lr, rho, "SAM") == 0.0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="grad_norm = None"):
        theory.edge_curvature(0.1, 0.1, "SAM")
    with pytest.raises(ValueError, match="lr = 0"):
        theory.edge_curvature(0.0)
    with pytest.raises(ValueError, match=r"weight_decay = 30.0: at lr 0.1 it must be < 20"):
        theory.edge_curvature(0.1, weight_decay=30.0)


def closure(opt, loss):
    opt.zero_grad()
    loss.backward()
    return loss.detach()
