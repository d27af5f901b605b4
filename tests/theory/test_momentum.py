"""Limits and growth with momentum, against torch.optim.SGD under the optimizer itself and against replicas."""

import math

import pytest
import torch
from quadratic_paths import optimizer, path

from fenland import theory
from fenland.lab.replicas import Quadratic, grid, run

BASES = [
    {},
    {"momentum": 0.5},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "dampening": 0.4},
    {"momentum": 0.8, "weight_decay": 0.7},
    {"weight_decay": 0.3},
    {"momentum": 0.6, "nesterov": True, "weight_decay": 0.2},
]
named = pytest.mark.parametrize("base", BASES, ids=lambda b: "-".join(b) or "plain")


@named
@pytest.mark.parametrize("method", ["SGD", "USAM", "SSAM-U"])
def test_growth_is_that_of_the_optimizer(base, method):
    """The mean rate over a long stretch, on both sides of the limit."""
    limit = theory.stable_lr(2.0, 0.3, method, **base)
    for part in (0.9, 1.1):
        rate = theory.growth(2.0, part * limit, 0.3, method, **base)
        norms = path([2.0], method, part * limit, 0.3, base, 90)
        first = len(norms) // 4
        measured = (norms[-1] / norms[first]) ** (1 / (len(norms) - 1 - first))
        assert measured == pytest.approx(rate, rel=0.02)
        assert (rate < 1) == (part < 1)


@named
@pytest.mark.parametrize("method", ["SGD", "USAM", "SSAM-U", "SSAM"])
def test_the_stable_learning_rate_is_sharp_to_two_percent(base, method):
    limit = theory.stable_lr(3.0, 0.4, method, **base)
    for part in (0.98, 1.02):
        norms = path([3.0], method, part * limit, 0.4, base, 120, [1e-2])
        assert (norms[-1] < 1e-2) == (part < 1), (part, norms[-1])


@named
def test_sam_stays_bounded_up_to_sgds_limit_whatever_its_radius(base):
    limit = theory.stable_lr(3.0, 5.0, "SAM", **base)
    assert limit == theory.stable_lr(3.0, 0.0, "SGD", **base)
    for part in (0.9, 1.1):
        norms = path([3.0], "SAM", part * limit, 0.5, base, 200)
        assert (norms[-1] < 1e3) == (part < 1)


@pytest.mark.parametrize("base", BASES[:5], ids=lambda b: "-".join(b) or "plain")
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_sams_cycle_with_momentum(base, part):
    """Started on the cycle (w = A, v of the step before), it is still there after many steps."""
    curve, rho = 2.0, 0.05
    lr = part * theory.stable_lr(curve, 0.0, "SGD", **base)
    amplitude = theory.cycle_amplitude(curve, lr, rho, **base)
    w = torch.nn.Parameter(torch.tensor([amplitude], dtype=torch.float64))
    opt = optimizer(w, "SAM", lr, rho, base)
    if base.get("momentum"):
        slope = curve * (amplitude + rho) * (1 - base.get("dampening", 0.0)) / (1 + base["momentum"])
        opt.base.state[w]["momentum_buffer"] = torch.tensor([-slope], dtype=torch.float64)

    def closure():
        opt.zero_grad()
        loss = curve * (w * w).sum() / 2
        loss.backward()
        return loss

    for _ in range(150):
        opt.step(closure)
    assert abs(w.item()) == pytest.approx(amplitude, rel=1e-6)


def test_the_mode_that_decides():
    assert theory.spectrum_limit([4.0, 1.0, 0.1]).eigenvalue == 4.0
    # With rho = 1 the drives of 1 and -3 are 2 and 6: the saddle's direction is held, and it sets the limit.
    limit = theory.spectrum_limit([1.0, -3.0, -0.5], 1.0)
    assert (limit.eigenvalue, limit.growing) == (-3.0, (-0.5,))
    assert limit.lr == pytest.approx(2 / 6)
    for part in (0.99, 1.01):
        assert (path([1.0, -3.0], "USAM", part * limit.lr, 1.0, {}, 300)[-1] < 1) == (part < 1)
    assert theory.spectrum_limit([-1.0, -2.0], 0.0, "SGD") == theory.Limit(math.inf, None, (-2.0, -1.0))


@pytest.mark.parametrize("method", ["SSAM-U", "SSAM", "USAM", "SGD"])
@pytest.mark.parametrize("spectrum", [(4.0, 0.5), (4.0, 3.0, 1.0, 0.1), (10.0, 9.0, 0.5), (2.0, 2.0)])
def test_rates_on_quadratics(method, spectrum):
    """The long-run factor of the replicas; SSAM's saturates at (A - a)/(A + a), whatever the learning rate."""
    problem, rho = Quadratic(spectrum), 0.3
    start = torch.randn(3, len(spectrum), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lrs = [x * theory.spectrum_limit(spectrum, rho, method).lr for x in (0.05, 0.3, 0.6, 0.9, 0.98)]
    # SSAM's rate is that near the minimum, where rho / ||g|| is large: rho = 1e3 starts there.
    many = grid(problem.pack(start), rho=1e3 if method == "SSAM" else rho, lr=lrs)
    out = run(problem, method, many, 800, sample_every=100)
    norms = torch.stack(out.samples, -1).norm(dim=-1).reshape(len(out.sampled), len(lrs), -1)
    for j, lr in enumerate(lrs):
        wanted = theory.convergence(spectrum, lr, rho, method)
        # the latest stretch that has not met the smallest number
        seen = max(k for k in range(1, len(out.sampled)) if norms[k, j].min() > 1e-140 or k == 1)
        if wanted**100 < 1e-120:
            continue
        measured = (norms[seen, j] / norms[seen - 1, j]).pow(1 / 100)
        assert measured.tolist() == pytest.approx([wanted] * 3, rel=0.01), lr


def test_the_fastest_learning_rate():
    for method in ("SGD", "USAM", "SSAM-U", "SSAM"):
        lr, rate = theory.best_lr((4.0, 1.0, 0.5), 0.3, method)
        assert theory.convergence((4.0, 1.0, 0.5), lr, 0.3, method) == pytest.approx(rate)
        for part in (0.9, 1.1):
            assert theory.convergence((4.0, 1.0, 0.5), part * lr, 0.3, method) >= rate - 1e-12
    assert theory.convergence((4.0, 1.0), 0.1, 0.3, "SAM") == 1.0
    assert theory.convergence((4.0, 1.0), 0.6, 0.3, "SAM") > 1.0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"momentum = 1.0"):
        theory.stable_lr(1.0, momentum=1.0)
    with pytest.raises(ValueError, match="nesterov"):
        theory.stable_lr(1.0, nesterov=True)
    with pytest.raises(ValueError, match=r"curvature = -1.0.*spectrum_limit"):
        theory.stable_lr(-1.0, 0.1)
    with pytest.raises(ValueError, match="method"):
        theory.stable_lr(1.0, method="Adam")
    with pytest.raises(ValueError, match="eigenvalues"):
        theory.spectrum_limit([])
    with pytest.raises(ValueError, match="known for 0 only"):
        theory.convergence((1.0, 2.0), 0.1, 0.1, "SSAM", momentum=0.9)
