"""Balls by their definition: ||e|| = rho, <a, e> = rho ||a||*, nobody in the ball does better; and what they ignore."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fenland import L2, Adaptive, Fisher, InfNorm, Lp, RandomTensors, Sparse, Spectral, ZScore
from fenland.algebra import Leaf, Lists, Stacked
from fenland.rules import Context, FullNorm, LossBudget, Unnormalized

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(1e-12, 1e12)
SHAPES = [(2, 3), (4,), (), (3, 2, 2, 2)]
NORMS = {
    "L2": L2(),
    "L1": Lp(1.0),
    "L1.5": Lp(1.5),
    "L4": Lp(4.0),
    "Linf": Lp(math.inf),
    "element": Adaptive(0.01),
    "filter": Adaptive(0.01, "filter"),
    "layer": Adaptive(0.01, "layer"),
    "eta 0": Adaptive(0.0),
    "Fisher": Fisher(1.0),
    "spectral": Spectral(),
}
every_norm = pytest.mark.parametrize("ball", NORMS.values(), ids=NORMS)


def vectors(seed: int, scale: float = 1.0, lead: tuple[int, ...] = ()) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(np.asarray(scale * rng.standard_normal((*lead, *s)))) for s in SHAPES]


def leaf(tensors) -> Leaf:
    return Leaf(tensors, Lists())


def step(w, names=None, **more) -> Context:
    return Context(w=w, param_names=names, **more)


def perturbation(ball, a, w, rho=1.0, **more):
    return (ball.steepest(leaf(a), step(w, rho=rho, **more)) * rho).tensors


def dual_norm(ball, a, w) -> float:
    """||a||*, as `gamma_norm="metric"` takes it."""
    x = leaf(a)
    return float(x.dot(ball.steepest(x, step(w))))


def inner(u, v) -> float:
    return float(sum((x * y).sum() for x, y in zip(u, v, strict=True)))


@every_norm
@given(seeds, st.floats(1e-3, 10.0))
def test_e_is_on_the_sphere_and_attains_the_dual_norm(ball, seed, rho):
    a, w = vectors(seed), vectors(seed + 1)
    e = perturbation(ball, a, w, rho)
    assert float(ball.norm(leaf(e), leaf(a), step(w))) == pytest.approx(rho, rel=1e-9)
    assert inner(a, e) == pytest.approx(rho * dual_norm(ball, a, w), rel=1e-9)


@every_norm
@given(seeds, seeds)
def test_nobody_else_in_the_ball_climbs_higher(ball, seed, other):
    a, w, u = vectors(seed), vectors(seed + 1), vectors(other)
    size = float(ball.norm(leaf(u), leaf(a), step(w)))
    assume(size > 1e-6)
    assert inner(a, u) / size <= dual_norm(ball, a, w) * (1 + 1e-9)


@given(seeds, st.floats(1.0, 20.0))
def test_lp_is_the_dual_norm_of_numpy(seed, p):
    assume(p > 1.001)
    a = vectors(seed)
    flat = np.concatenate([x.numpy().reshape(-1) for x in a])
    e = np.concatenate([x.numpy().reshape(-1) for x in perturbation(Lp(p), a, a, 0.3)])
    q = p / (p - 1)
    assert np.linalg.norm(e, p) == pytest.approx(0.3, rel=1e-9)
    assert flat @ e == pytest.approx(0.3 * np.linalg.norm(flat, q), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e35])
@pytest.mark.parametrize("p", [1.0, 1.2, 2.0, 3.0, 50.0, math.inf])
def test_lp_survives_gradients_of_any_size_in_float32(p, scale):
    a = [(x * scale).float() for x in vectors(0)]
    e = perturbation(Lp(p), a, a, 0.5)
    assert all(x.isfinite().all() for x in e)
    if scale > 1e-29:
        assert float(Lp(p).norm(leaf(e), leaf(a), step(a))) == pytest.approx(0.5, rel=1e-4)


@given(seeds, scales)
@pytest.mark.parametrize("ball", [b for k, b in NORMS.items() if k != "Fisher"], ids=repr)
def test_the_size_of_the_gradient_does_not_matter(ball, seed, scale):
    a, w = vectors(seed), vectors(seed + 1)
    one, other = perturbation(ball, a, w), perturbation(ball, [scale * x for x in a], w)
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("ball", [*NORMS.values(), InfNorm(), Sparse(), ZScore(), RandomTensors()], ids=repr)
def test_a_zero_gradient_is_not_perturbed(ball):
    a, w = [torch.zeros(s, dtype=torch.float64) for s in SHAPES], vectors(1)
    assert all(not x.any() for x in perturbation(ball, a, w))


@given(seeds, st.permutations(range(len(SHAPES))))
@every_norm
def test_the_order_of_tensors_does_not_matter(ball, seed, order):
    a, w = vectors(seed), vectors(seed + 1)
    one = perturbation(ball, a, w)
    other = perturbation(ball, [a[i] for i in order], [w[i] for i in order])
    for k, i in enumerate(order):
        torch.testing.assert_close(other[k], one[i], rtol=1e-10, atol=1e-12)


@given(seeds)
def test_l2_and_spectral_commute_with_rotations(seed):
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(rng.standard_normal((4, 3)))
    q, r = (torch.from_numpy(np.linalg.qr(rng.standard_normal((n, n)))[0]) for n in (4, 3))
    for ball in (L2(), Spectral()):
        (one,), (other,) = perturbation(ball, [a], [a]), perturbation(ball, [q @ a @ r], [a])
        torch.testing.assert_close(other, q @ one @ r, rtol=1e-8, atol=1e-9)


@given(seeds, st.floats(0.1, 10.0))
def test_asam_is_invariant_under_node_wise_rescaling(seed, c):
    """f(w1, w2) = w2 relu(w1 x): (c w1, w2 / c) is the same function, as sharp, and its e scales alike."""
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(rng.standard_normal((5, 3))), torch.from_numpy(rng.standard_normal((5, 1)))
    w1, w2 = torch.from_numpy(rng.standard_normal((4, 3))), torch.from_numpy(rng.standard_normal((1, 4)))

    def loss(u, v):
        return ((torch.relu(x @ u.T) @ v.T - y) ** 2).mean()

    found = []
    for u, v in ((w1, w2), (c * w1, w2 / c)):
        u, v = u.clone().requires_grad_(), v.clone().requires_grad_()
        g = list(torch.autograd.grad(loss(u, v), (u, v)))
        e = perturbation(Adaptive(0.0), g, [u.detach(), v.detach()], 0.3)
        found.append((e, loss(u + e[0], v + e[1]).item()))
    (one, sharp), (other, same) = found
    assert same == pytest.approx(sharp, rel=1e-9)
    torch.testing.assert_close(other[0], c * one[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(other[1], one[1] / c, rtol=1e-8, atol=1e-10)


@given(seeds)
def test_filters_share_one_scale_and_biases_can_stay_out(seed):
    a, w = vectors(seed), vectors(seed + 1)
    names = ["0.weight", "0.bias", "cls", "1.weight"]
    ball = Adaptive(0.1, "filter", include_bias=False)
    metric = ball.metric(leaf(w), step(w, names))
    assert torch.equal(metric[1], torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(metric[0], w[0].abs() + 0.1)  # no convolution: its elements
    torch.testing.assert_close(metric[3][:, 0, 0, 0], w[3].flatten(1).norm(dim=1) + 0.1)
    e = perturbation(ball, a, w, 1.0, names=names)
    assert math.sqrt(sum(float((x / t).norm() ** 2) for x, t in zip(e, metric, strict=True))) == pytest.approx(1.0)


def test_biases_without_names_are_an_error():
    with pytest.raises(ValueError, match="names"):
        perturbation(Adaptive(0.1, include_bias=False), vectors(0), vectors(1))


@given(seeds, st.floats(0.0, 0.95))
def test_sparse_keeps_the_share_and_the_normaliser_of_all(seed, sparsity):
    a = vectors(seed)
    full, e = perturbation(L2(), a, a), perturbation(Sparse(sparsity=sparsity), a, a)
    count = sum(x.numel() for x in a)
    assert sum(int((x != 0).sum()) for x in e) == count - int(sparsity * count)
    for x, y in zip(full, e, strict=True):
        assert bool(((y == 0) | (y == x)).all())
    best = Sparse(sparsity=sparsity).steepest(leaf(a), step(a))
    assert float(best.length) == pytest.approx(float(Lists().norm(e)))


@given(seeds)
def test_masks_before_the_norm_fill_the_ball_and_esam_s_is_larger(seed):
    a = vectors(seed)
    assert float(Lists().norm(perturbation(ZScore(quantile=0.7), a, a, 0.4))) == pytest.approx(0.4)
    for count in range(4):
        e = perturbation(RandomTensors(beta=0.5), a, a, 0.4, count=count)
        assert float(Lists().norm(e)) == pytest.approx(0.8)
        again = perturbation(RandomTensors(beta=0.5), a, a, 0.4, count=count)
        assert all(torch.equal(x, y) for x, y in zip(e, again, strict=True))


@given(seeds, st.floats(0.01, 10.0))
def test_the_loss_budget_is_spent_to_first_order(seed, sigma):
    a = vectors(seed)
    e = perturbation(LossBudget(sigma), a, a, 999.0)
    assert inner(a, e) == pytest.approx(sigma, rel=1e-9)
    assert float(Lists().norm(perturbation(LossBudget(1e6), a, a, 0.1))) == pytest.approx(0.1)


def _two() -> float:
    return 2.0


REPLICAS = [
    *(b for k, b in NORMS.items() if k != "spectral"), Spectral(), InfNorm(), Sparse(), ZScore(), ZScore(scope="layer"),
    RandomTensors(), LossBudget(0.1), Unnormalized(), FullNorm(_two), Sparse(Adaptive(0.1)),
]  # fmt: skip


@pytest.mark.parametrize("ball", REPLICAS, ids=lambda b: type(b).__name__)
def test_stacked_replicas_are_each_one_model(ball):
    """The very same rule on R = 5 problems at once."""
    a, w = vectors(1, lead=(5,)), vectors(2, lead=(5,))
    best = ball.steepest(Leaf(a, Stacked()), step(w, rho=0.3))
    assert best.norm.shape == (5,)
    e = (best * 0.3).tensors
    for r in range(5):
        one = perturbation(ball, [x[r] for x in a], [x[r] for x in w], 0.3)
        for x, y in zip(e, one, strict=True):
            torch.testing.assert_close(x[r], y, rtol=1e-11, atol=1e-13)
