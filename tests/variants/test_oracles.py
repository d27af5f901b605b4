"""variants.md section 9: identities between methods, each through the public API and over several steps."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fenland
from cases import make_problem
from fenland import (
    Ascend,
    EveryK,
    InnerSteps,
    Penalty,
    Renormalize,
    Reuse,
    SharpnessAware,
    Spherical,
    SurrogateGap,
    Weighted,
    WeightedDecoupled,
    WithProbability,
)
from fenland.algebra import Leaf, Lists
from fenland.rules import Control
from harness import Recorder, Session, assert_same, watch
from twins import SGDTwin, norm, quadratic_loss


def run(build, steps=6, case="mlp", base=None):
    problem = make_problem(case)
    made = (base or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)))(problem.parameters())
    return Session(problem, build(made)).run(steps)


def close(one, other, rtol=1e-10):
    for a, b in zip(one.weights, other.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-12)


SAM_IN_DISGUISE = {
    "GSAM alpha 0": lambda b: fenland.GSAM(b, 0.2, alpha=0.0),
    "WSAM gamma .5 coupled": lambda b: fenland.WSAM(b, 0.2, gamma=0.5, decoupled=False),
    "GNP alpha 1": lambda b: fenland.GNP(b, 0.2, alpha=1.0),
    "XSAM alpha 1": lambda b: fenland.XSAM(b, 0.2, alpha=1.0),
    "LookSAM k 1": lambda b: fenland.LookSAM(b, 0.2, k=1),
    "RST p 1": lambda b: fenland.RST(b, 0.2, p=1.0),
    "RST p(t) 1": lambda b: fenland.RST(b, 0.2, p=lambda t: 1.0),
    "interval 1": lambda b: fenland.IntervalSAM(b, 0.2, k=1),
    "whole window": lambda b: fenland.WindowSAM(b, 0.2),
    "Lp 2": lambda b: fenland.LpSAM(b, 0.2, p=2.0),
    "Fisher eta 0": lambda b: fenland.FisherSAM(b, 0.2, eta=0.0),
    "sparsity 0": lambda b: fenland.SparseSAM(b, 0.2, sparsity=0.0),
    "z-score of all": lambda b: fenland.ZSharp(b, 0.2, quantile=0.0),
    "budget without end": lambda b: fenland.LESAM(b, 0.2, sigma=1e9),
    "one inner step": lambda b: fenland.NStepSAM(b, 0.2, n=1),
    "VaSSO theta 1": lambda b: fenland.VaSSO(b, 0.2, theta=1.0),
    "Friendly sigma 0": lambda b: fenland.FriendlySAM(b, 0.2, sigma=0.0),
    "flat manifold": lambda b: fenland.RiemannianSAM(b, 0.2),
    "control (h, h)": lambda b: fenland.ControlSAM(b, 0.2, direction="h", length="h"),
}


@pytest.mark.parametrize("name", SAM_IN_DISGUISE)
def test_the_limits_that_are_sam(name):
    close(run(SAM_IN_DISGUISE[name]), run(lambda b: fenland.SAM(b, 0.2)))


SGD_IN_DISGUISE = {
    "GNP alpha 0": lambda b: fenland.GNP(b, 0.2, alpha=0.0),
    "WSAM gamma 0": lambda b: fenland.WSAM(b, 0.2, gamma=0.0),
    "WSAM gamma 0 coupled": lambda b: fenland.WSAM(b, 0.2, gamma=0.0, decoupled=False),
    "control (g, g)": lambda b: fenland.ControlSAM(b, 0.2, direction="g", length="g"),
    "RST p 0": lambda b: fenland.RST(b, 0.2, p=0.0),
    "empty window": lambda b: fenland.WindowSAM(b, 0.2, start=3, stop=3),
    "no budget": lambda b: fenland.LESAM(b, 0.2, sigma=0.0),
}


@pytest.mark.parametrize("name", SGD_IN_DISGUISE)
def test_the_limits_that_are_the_base(name):
    close(run(SGD_IN_DISGUISE[name]), run(lambda b: fenland.SAM(b, 0.0)))


def test_stable_sam_is_a_cell_of_the_control():
    close(run(lambda b: fenland.ControlSAM(b, 0.2, "h", "g")), run(lambda b: fenland.SSAM(b, 0.2)))


def test_friendly_averages_give_one_e_where_sigma_is_1():
    old, new = (run(lambda b, a=a: fenland.FriendlySAM(b, 0.2, average=a), steps=8) for a in ("old", "new"))
    close(old, new, rtol=1e-8)


def test_msam_with_the_fitting_radius_is_nesterov():
    """rho_t = lr mu ||v_t|| (variants.md 4.3), on a quadratic, 30 steps."""
    matrix = np.diag(np.linspace(0.1, 3.0, 6))
    _, grad = quadratic_loss(matrix)
    w = [np.linspace(-1, 1, 6)]
    params = [nn.Parameter(torch.tensor(x)) for x in w]
    base = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    opt = fenland.MSAM(base, rho=0.1)
    velocity = np.zeros(6)

    def closure():
        params[0].grad = torch.tensor(grad([params[0].detach().numpy()])[0])
        return torch.zeros(())

    for _ in range(30):
        state = base.state.get(params[0], {}).get("momentum_buffer")
        opt.param_groups[0]["rho"] = 0.0 if state is None else 0.1 * 0.9 * float(state.norm())
        opt.step(closure)
        velocity = 0.9 * velocity + grad([w[0] - 0.1 * 0.9 * velocity])[0]
        w = [w[0] - 0.1 * velocity]
        np.testing.assert_allclose(params[0].detach().numpy(), w[0], rtol=1e-10, atol=1e-13)


def test_msam_reads_adam_s_first_moment_too():
    session = run(lambda b: fenland.MSAM(b, 0.3), steps=3, base=lambda p: torch.optim.AdamW(p, lr=0.01))
    assert float(session.opt.last.radius) == pytest.approx(0.3)
    with pytest.warns(UserWarning, match="momentum = 0"):
        plain = run(lambda b: fenland.MSAM(b, 0.3), steps=3, base=lambda p: torch.optim.SGD(p, lr=0.01))
    assert float(plain.opt.last.radius) == 0.0  # no momentum to look along


METHODS = [
    Ascend(combine=SurrogateGap(0.6)),
    Ascend(combine=Penalty(0.8)),
    Ascend(combine=Weighted(0.9)),
    Ascend(combine=Spherical(0.7)),
    Ascend(combine=Control("g", "h")),
    Reuse(0.7),
    InnerSteps(3, combine=SurrogateGap(0.6)),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_renormalised_d_has_the_length_of_g(method):
    """Section 8: combine, then renormalise; norms of all parameters."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((10, 10))
    _, grad = quadratic_loss(matrix @ matrix.T / 10 - 0.3 * np.eye(10))
    w = [rng.standard_normal((2, 3)), rng.standard_normal(4)]
    seen = watch(lambda base: SharpnessAware(base, 0.3, method=Renormalize(method)), w, grad)
    assert norm(seen.d) == pytest.approx(norm(seen.gradients[0]), rel=1e-11)
    plain = watch(lambda base: SharpnessAware(base, 0.3, method=method), w, grad)
    np.testing.assert_allclose(
        np.concatenate([x.reshape(-1) for x in seen.d]) / norm(seen.d),
        np.concatenate([x.reshape(-1) for x in plain.d]) / norm(plain.d),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("ball", [fenland.Adaptive(), fenland.Lp(4.0), fenland.Sparse(), fenland.ZScore()], ids=repr)
def test_renormalisation_takes_plain_norms_on_any_ball(ball):
    rng = np.random.default_rng(1)
    _, grad = quadratic_loss(np.diag(np.linspace(-0.5, 3, 10)))
    w = [rng.standard_normal((2, 3)), rng.standard_normal(4)]
    seen = watch(lambda base: fenland.SSAM(base, 0.3, ball=ball), w, grad)
    assert norm(seen.d) == pytest.approx(norm(grad(w)), rel=1e-12)


def test_what_cannot_be_renormalised_is_refused():
    base = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="coupled"):
        Renormalize(WeightedDecoupled(0.9))
    with pytest.raises(ValueError, match="clean gradient"):
        Renormalize(fenland.BaseMomentum())
    with pytest.raises(ValueError, match="no norm"):
        fenland.SSAM(base, 0.1, normalize=False, gamma_norm="metric")
    with pytest.raises(ValueError, match="metric"):
        Renormalize(Ascend(combine=Penalty()), gamma_norm="metric")


def test_stable_on_skipped_steps_is_the_base():
    """RST x SSAM: gamma is 1 where no ascent runs."""
    when = WithProbability(0.5, seed=2)
    session = run(lambda b: SharpnessAware(b, 0.2, method=Renormalize(), when=when), steps=12)
    assert bool(session.opt.last.gamma > 0)


def test_looksam_renormalised_on_reuse():
    build = lambda b: SharpnessAware(b, 0.2, method=Renormalize(Reuse(0.7)), when=EveryK(3))  # noqa: E731
    problem = make_problem("mlp")
    base = Recorder(problem.parameters())
    session = Session(problem, build(base))
    for t in range(6):
        session.step(t)
        length = math.sqrt(sum(float(d.norm() ** 2) for d in base.handed[-1]))
        assert length == pytest.approx(float(session.opt.last.grad_norm), rel=1e-10)


def test_the_slerp_is_on_the_sphere_and_survives_parallel_gradients():
    torch.manual_seed(0)
    g, h = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    for alpha in (0.0, 0.3, 1.0, 1.5):
        d = Spherical(alpha)(Leaf([g], Lists()), Leaf([h], Lists()))
        assert float(d.norm) == pytest.approx(float(h.norm()), rel=1e-12)
        assert float(d.tensors[0].norm()) == pytest.approx(float(h.norm()), rel=1e-12)
    for sign in (1.0, -1.0):
        d = Spherical(0.3)(Leaf([g], Lists()), Leaf([sign * g], Lists()))
        assert len(d.terms) == 2
        for coefficient, _ in d.terms:
            assert bool(torch.as_tensor(coefficient).isfinite())


def test_matrix_sensing_unnormalised_sam_diverges_and_sam_does_not():
    """Seed experiment of variants.md 2.2, smaller: rho = .1 blows up in four steps, Foret's ascent descends."""
    torch.manual_seed(0)
    d, r, n = 30, 5, 400
    truth = torch.randn(d, r, dtype=torch.float64) / d**0.5
    sensors = torch.randn(n, d, d, dtype=torch.float64)
    sensors = (sensors + sensors.transpose(1, 2)) / 2
    targets = torch.einsum("nij,ij->n", sensors, truth @ truth.T)
    losses = {}
    for name in ("USAM", "SAM"):
        torch.manual_seed(1)
        u = nn.Parameter(6 * torch.randn(d, d, dtype=torch.float64) / d)
        opt = getattr(fenland, name)(torch.optim.SGD([u], lr=0.2), rho=0.1)

        def closure(u=u, opt=opt):
            opt.zero_grad()
            loss = 0.25 * ((torch.einsum("nij,ij->n", sensors, u @ u.T) - targets) ** 2).mean()
            loss.backward()
            return loss

        losses[name] = [opt.step(closure).item() for _ in range(5)]
    assert losses["SAM"][-1] < losses["SAM"][0]
    assert not losses["USAM"][-1] < 1e6 * losses["USAM"][0]


def test_inner_steps_with_radii_by_group_stay_in_their_units():
    """Each group's e in units of its own rho is the same as one group's with one radius (L2, split)."""
    torch.manual_seed(0)
    _, grad = quadratic_loss(np.diag(np.linspace(0.5, 3, 10)))
    w = [np.linspace(-1, 1, 6).reshape(2, 3), np.linspace(1, 2, 4)]
    method = InnerSteps(3, "project")
    one = watch(lambda b: SharpnessAware(b, 0.3, method=method), w, grad)
    two = watch(lambda b: SharpnessAware(b, 9.0, method=method), w, grad, group_options=[{"rho": 0.3}, {"rho": 0.3}])
    for a, b in zip(one.e, two.e, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    mixed = watch(lambda b: SharpnessAware(b, 9.0, method=method), w, grad, group_options=[{"rho": 0.3}, {"rho": 0.1}])
    lengths = [norm([mixed.e[0]]) / 0.3, norm([mixed.e[1]]) / 0.1]
    assert math.hypot(*lengths) <= 1 + 1e-12


def test_decoupled_wsam_corrects_outside_the_base():
    """w -= lr kappa (h - g) after a step of the base with g: no momentum, no clipping, no decay on it."""
    _, grad = quadratic_loss(np.diag(np.linspace(0.5, 3, 10)))
    w = [np.linspace(-1, 1, 6).reshape(2, 3), np.linspace(1, 2, 4)]
    params = [nn.Parameter(torch.tensor(x)) for x in w]
    opt = fenland.WSAM(torch.optim.SGD(params, lr=0.1, momentum=0.9), rho=0.3, gamma=0.8, max_norm=0.5)
    twin = SGDTwin(0.1, 0.9)

    def closure():
        for p, g in zip(params, grad([p.detach().numpy() for p in params]), strict=True):
            p.grad = torch.tensor(g)
        return torch.zeros(())

    for _ in range(5):
        opt.step(closure)
        g = grad(w)
        h = grad([x + 0.3 * y / norm(g) for x, y in zip(w, g, strict=True)])
        clip = min(1.0, 0.5 / (norm(g) + 1e-6))
        after = twin.step(w, [clip * x for x in g])
        w = [x - 0.1 * 4 * (b - a) for x, a, b in zip(after, g, h, strict=True)]
    for p, x in zip(params, w, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-10)


def test_the_random_perturbation_leaves_the_world_s_generators_alone():
    state = torch.get_rng_state()
    first = run(lambda b: fenland.RandomSAM(b, 0.2), steps=4)
    torch.manual_seed(99)
    again = run(lambda b: fenland.RandomSAM(b, 0.2), steps=4)
    assert_same(again.weights, first.weights)
    torch.set_rng_state(state)
    other = run(lambda b: fenland.RandomSAM(b, 0.2, seed=1), steps=4)
    assert not torch.equal(other.weights[0], first.weights[0])
