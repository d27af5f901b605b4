"""Kim et al.'s theorems as printed, beside the flows, Monte Carlo of autograd's own gradients, and exact sums."""

import math

import pytest
import torch

import fenland
from fenland import theory
from fenland.lab.replicas import FromFunction, Noise, Quadratic, grid, run

SADDLE, RHO, LR, STD = -1.0, 0.2, 0.01, 0.5  # |l| / B = STD^2, so B = 4
BATCH, STEPS = 4.0, 100  # |l| * t = 1
PATHS = 20000


def ascended(curvature, rho):
    """L(w + rho*grad L(w)) for L = l*w^2/2; run() differentiates it, the Jacobian of the ascent included."""

    def value(weights):
        (w,) = weights
        return curvature * (w + rho * curvature * w) ** 2 / 2

    return FromFunction(value, ((),))


def msd(problem, method, noise, rho=RHO, steps=STEPS, std=STD, paths=PATHS):
    """Mean w^2 after steps from 0, and its standard error."""
    start = grid([torch.zeros(paths, dtype=torch.float64)], rho=rho, lr=LR)
    squares = run(problem, method, start, steps, noise=Noise(std, noise)).w[0].square()
    return squares.mean().item(), squares.std().item() / math.sqrt(paths)


@pytest.mark.parametrize("rho", [0.2, 0.8, 1.0, 1.25, 3.0])
@pytest.mark.parametrize("eigenvalues", [(-1.0, 2.0), (-1.0, -0.5, 2.0), (0.3, 2.0)])
def test_theorem_1_is_what_the_flow_does(eigenvalues, rho):
    """Small steps of fenland.USAM from beside the critical point: they come back, or they leave."""
    curvature = torch.tensor(eigenvalues, dtype=torch.float64)
    w = torch.nn.Parameter(torch.full_like(curvature, 1e-3))
    opt = fenland.USAM(torch.optim.SGD([w], lr=0.02), rho=rho)
    for _ in range(150):
        opt.step(lambda: closure(opt, lambda: (curvature * w * w).sum() / 2))
    away = float(w.detach().abs().max())
    if rho == 1.0 and -1.0 in eigenvalues:  # the threshold: nothing moves along it
        assert w[0].item() == pytest.approx(1e-3)
        assert not theory.attracts(eigenvalues, rho)
    else:
        assert theory.attracts(eigenvalues, rho) == (away < 1e-3)
    weakest = min((-x for x in eigenvalues if x < 0), default=math.inf)
    assert theory.attracts(eigenvalues, rho) == (math.isinf(weakest) or rho > 1 / weakest)


@pytest.mark.parametrize("rho", [0.2, 0.8, 1.25, 3.0])
def test_the_full_gradient_is_held_at_no_saddle(rho):
    """Theorem 2's drift keeps the sign of l: small steps along autograd's gradient of L(w + rho*grad L(w)) leave."""
    assert not theory.attracts((-1.0, 2.0), rho, "full")
    start = [torch.full((1,), 1e-3, dtype=torch.float64)]
    end = run(ascended(-1.0, rho), "SGD", grid(start, rho=0.0, lr=0.01), 400).w[0].item()
    assert end == pytest.approx(1e-3 * (1 + 0.01 * (1 - rho) ** 2) ** 400, rel=1e-9)
    assert end > 1e-3


def test_the_full_gradient_is_refused_nothing_to_judge():
    with pytest.raises(ValueError, match="eigenvalues"):
        theory.attracts((), 0.1)


def test_theorem_2_is_the_full_gradient_with_untouched_noise():
    """Monte Carlo of the four dynamics at rho = 0.2, |l|*t = 1: Theorem 2 is the full gradient's, no step of SAM's."""
    printed = theory.published_displacement(SADDLE, LR, RHO, BATCH, LR * STEPS)
    assert printed == pytest.approx(0.00507156)
    assert printed == pytest.approx(theory.diffusion(SADDLE, LR, RHO, STD, LR * STEPS, "full"), rel=1e-12)
    found = {noise: msd(Quadratic((SADDLE,)), "USAM", noise) for noise in ("shared", "independent", "descent")}
    found["full"] = msd(ascended(SADDLE, RHO), "SGD", "shared")  # "shared" of SGD: noise on the one gradient
    for name, (mean, error) in found.items():
        assert abs(mean - theory.displacement(SADDLE, LR, RHO, STD, STEPS, name)) < 4 * error
        near = abs(mean - printed) < 4 * error + 0.01 * printed  # 1 %: the steps are not infinitely small
        assert near == (name == "full")
    wanted = {"shared": 0.00395, "independent": 0.00642, "descent": 0.00618, "full": 0.00507}
    for name, value in wanted.items():
        assert theory.diffusion(SADDLE, LR, RHO, STD, 1.0, name) == pytest.approx(value, abs=5e-6)


def test_the_full_gradient_on_a_mini_batch_is_not_theorem_2_either():
    """xi goes through the ascent and its Jacobian: (1 + rho*l)^2 of it is left. The batch's loss is L + xi*w."""
    draws = torch.Generator().manual_seed(7)
    w = torch.zeros(PATHS, dtype=torch.float64)
    for _ in range(STEPS):
        xi = STD * torch.randn(PATHS, generator=draws, dtype=torch.float64)
        at = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(batch_loss(at, xi), at, create_graph=True)
        (d,) = torch.autograd.grad(batch_loss(at + RHO * g, xi), at)
        w = w - LR * d
    mean, error = w.square().mean().item(), w.square().std().item() / math.sqrt(PATHS)
    left = STD * (1 + RHO * SADDLE) ** 2
    assert abs(mean - theory.displacement(SADDLE, LR, RHO, left, STEPS, "full")) < 4 * error
    assert mean < 0.5 * theory.published_displacement(SADDLE, LR, RHO, BATCH, LR * STEPS)


def batch_loss(w, xi):
    return (SADDLE * w * w / 2 + xi * w).sum()


def test_theorem_2_grows_where_sam_is_drawn_back():
    """Past rho*|l| = 1 SAM's MSD is stationary, as Theorem 1 says, and Theorem 2's has no end."""
    lr = 0.05
    start = grid([torch.zeros(PATHS, dtype=torch.float64)], rho=3.0, lr=lr)
    late = run(Quadratic((SADDLE,)), "USAM", start, 400, noise=Noise(STD, "descent")).w[0].square()
    error = late.std().item() / math.sqrt(PATHS)
    still = theory.stationary_displacement(SADDLE, lr, 3.0, STD, "descent")
    assert abs(late.mean().item() - still) < 4 * error
    assert theory.published_displacement(SADDLE, lr, 3.0, BATCH, lr * 400) > 1e60 * still
    ratio = [theory.published_displacement(SADDLE, lr, rho, BATCH, 1.0) for rho in (3.0, 0.0)]
    assert ratio[0] / ratio[1] == pytest.approx(117, abs=0.5)
    assert theory.published_displacement(SADDLE, lr, 1.0, BATCH, 2.0) == pytest.approx(lr / BATCH * 2.0)
    assert theory.published_displacement(SADDLE, lr, 30.0, BATCH, 2.0) == math.inf


def test_corollary_1_is_a_term_of_theorem_2():
    """Its t^2 coefficient, to first order in rho; 2 + rho*l is exact, and |l|*t << 1 is needed."""
    for curve in (-1.0, 1.5):
        for rho in (1e-3, 0.2):
            time = 1e-4
            still, sam = (theory.published_displacement(curve, LR, r, BATCH, time) for r in (0.0, rho))
            unit = LR * time**2 * abs(curve) ** 3 * rho / BATCH
            assert (still - sam) / unit == pytest.approx(2 + rho * curve, rel=1e-3)
            assert theory.published_gap(curve, LR, rho, BATCH, time) == pytest.approx(2 * unit)
    whole = [theory.published_displacement(SADDLE, 0.0025, rho, 1.0, 1.0) for rho in (0.0, 0.2)]
    assert whole[0] - whole[1] == pytest.approx(0.0029, abs=5e-5)
    assert theory.published_gap(SADDLE, 0.0025, 0.2, 1.0, 1.0) == pytest.approx(0.001)


def test_theorem_3_as_printed_moves_at_time_0():
    """C2 = eta/t leaves the whole first term at t = 0; C2 = t/eta starts at 0, as everything does."""
    arguments = (SADDLE, LR, 0.0, BATCH, 0.9)
    assert theory.published_momentum(*arguments, 0.0) == 0.0
    printed = theory.published_momentum(*arguments, 0.0, inverted=True)
    assert printed == pytest.approx(LR**2 / 2 / (BATCH * 0.1**3))
    assert theory.published_momentum(*arguments, 1.0) < theory.published_momentum(*arguments, 2.0)


@pytest.mark.parametrize(
    ("scaled", "steps", "sign", "ratio"),
    [
        (0.01, 20, -1, 2.86),
        (0.01, 200, -1, 1.12),
        (1.0, 20, -1, 15.9),
        (1.0, 200, -1, 8.7e6),
        (0.01, 1000, 1, 1.01),
        (0.1, 1000, 1, 1.10),
        (1.0, 1000, 1, 1.995),
        (4.0, 1000, 1, 4.95),
    ],
)
def test_theorem_3_beside_torchs_heavy_ball(scaled, steps, sign, ratio):
    """The exact sum is that of torch.optim.SGD's impulse response, stepped here."""
    momentum, lr = 0.9, 0.03
    curvature = sign * scaled * 0.01 / lr
    w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    opt = torch.optim.SGD([w], lr=lr, momentum=momentum)
    squares = 0.0
    for step in range(steps):  # one kick of unit noise, then none
        w.grad = curvature * w.detach() + float(step == 0)
        opt.step()
        squares += float(w.detach()) ** 2
    exact = squares * abs(curvature) / BATCH
    printed = theory.published_momentum(curvature, lr, 0.0, BATCH, momentum, lr * steps)
    assert printed / exact == pytest.approx(ratio, rel=5e-3)
    assert theory.momentum_ratio(scaled, steps * 0.1, momentum, sign) == pytest.approx(printed / exact, rel=1e-6)


def test_where_theorem_3_holds_and_why_not():
    """From rest: late too large by (2s+1)/(2s-3), early by 3/s^2; by 1 + x where a mode contracts."""
    for s in (5.0, 10.0, 20.0):
        assert theory.momentum_ratio(1e-4, s, 0.99) == pytest.approx((2 * s + 1) / (2 * s - 3), rel=0.01)
    assert theory.momentum_ratio(1e-4, 0.1, 0.99) > 200
    for x in (0.1, 1.0, 3.0):
        assert theory.momentum_ratio(x, 500.0, 0.99, 1) == pytest.approx(1 + x, rel=0.01)
    assert theory.momentum_ratio(1e-5, 1000.0, 0.99) == pytest.approx(1.0, abs=0.03)
    assert theory.momentum_ratio(4.0, 100.0, 0.9) == math.inf


def test_theorem_3_has_the_drift_of_the_full_gradient():
    found = theory.published_momentum(SADDLE, LR, 0.2, BATCH, 0.0, 1.0)
    first = LR**2 / 2 / BATCH * (1 - math.exp(-1 / LR)) ** 2
    assert found - first == pytest.approx(theory.published_displacement(SADDLE, LR, 0.2, BATCH, 1.0))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="batch"):
        theory.published_gap(1.0, 0.1, 0.1, 0, 1.0)
    with pytest.raises(ValueError, match="divides by"):
        theory.published_momentum(-2.0, 0.1, 0.5, 1.0, 0.9, 1.0)
    with pytest.raises(ValueError, match="momentum"):
        theory.momentum_ratio(0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match="sign = 0"):
        theory.momentum_ratio(0.1, 1.0, 0.9, 0)
    with pytest.raises(ValueError, match="dynamics"):
        theory.drift(1.0, 0.1, "none")


def closure(opt, value):
    opt.zero_grad()
    loss = value()
    loss.backward()
    return loss.detach()
