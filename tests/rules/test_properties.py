"""Properties that follow from the definitions, on random problems (hypothesis), seen through the public API."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from harness import Recorder, preset, watch
from twins import dot, norm, quadratic_loss

seeds = st.integers(0, 2**32 - 1)
radii = st.floats(1e-3, 3.0)
scales = st.floats(1e-8, 1e8)
SHAPES = [(2, 3), (4,), (), (1, 2, 2)]


def vectors(seed: int, scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(scale * rng.standard_normal(shape)) for shape in SHAPES]


def field(seed: int):
    """A smooth gradient field with no structure: g(w) = A w + b + sin(w)."""
    rng = np.random.default_rng(seed)
    size = sum(int(np.prod(s)) for s in SHAPES)
    matrix, shift = rng.standard_normal((size, size)) / 3, rng.standard_normal(size)

    def grad(w):
        flat = np.concatenate([x.reshape(-1) for x in w])
        out, at, result = matrix @ flat + shift + np.sin(flat), 0, []
        for x in w:
            result.append(out[at : at + x.size].reshape(x.shape))
            at += x.size
        return result

    return grad


def step(name: str, w, grad, rho: float, **options):
    return watch(lambda base: preset(name).build(base, rho=rho, **options), w, grad)


def close(got, want, rtol=1e-10):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(norm(want), 1e-300))


@given(seeds, radii, scales)
@pytest.mark.parametrize("name", ["SAM", "SSAM"])
def test_the_perturbation_is_the_steepest_in_its_ball(name, seed, rho, scale):
    """||e|| = rho and <a, e> = rho ||a||, whatever the size of a."""
    a = vectors(seed, scale)
    seen = step(name, [np.zeros(s) for s in SHAPES], lambda w: [x.copy() for x in a], rho)
    assert norm(seen.e) == pytest.approx(rho, rel=1e-12)
    assert dot(a, seen.e) == pytest.approx(rho * norm(a), rel=1e-12)


@given(seeds, radii)
def test_the_unnormalised_ascent_is_rho_times_the_gradient(seed, rho):
    a = vectors(seed)
    seen = step("USAM", [np.zeros(s) for s in SHAPES], lambda w: [x.copy() for x in a], rho)
    close(seen.e, [rho * x for x in a], rtol=1e-14)
    assert norm(seen.e) == pytest.approx(rho * norm(a), rel=1e-13)


@given(seeds, radii, st.booleans())
def test_ssam_s_d_is_as_long_as_g_and_as_directed_as_h(seed, rho, normalize):
    w, grad = vectors(seed), field(seed)
    seen = step("SSAM", w, grad, rho, normalize=normalize)
    g, h = seen.gradients[0], seen.gradients[-1]
    assert norm(seen.d) == pytest.approx(norm(g), rel=1e-12)
    assert dot(seen.d, h) == pytest.approx(norm(seen.d) * norm(h), rel=1e-12)


@given(seeds, radii, st.floats(0.1, 2.0))
def test_the_cap_bounds_gamma(seed, rho, cap):
    w, grad = vectors(seed), field(seed)
    seen = step("SSAM", w, grad, rho, cap=cap)
    g, h = seen.gradients[0], seen.gradients[-1]
    assert norm(seen.d) == pytest.approx(min(norm(g) / norm(h), cap) * norm(h), rel=1e-12)


@given(seeds, st.floats(0.05, 0.9))
def test_ssam_in_one_dimension_is_gradient_descent(seed, rho):
    """Whenever sign h = sign g (variants.md 2.3)."""
    rng = np.random.default_rng(seed)
    curvature, w = rng.uniform(0.1, 5.0), [np.asarray([rng.uniform(0.5, 3.0)])]
    for normalize in (True, False):
        seen = step("SSAM", w, lambda v: [curvature * v[0]], rho, normalize=normalize)
        np.testing.assert_allclose(seen.after[0], w[0] - 0.1 * curvature * w[0], rtol=1e-13)
        assert not np.isclose(seen.gradients[0][0], seen.gradients[1][0])


@given(seeds, st.floats(0.01, 2.0), scales)
def test_gamma_on_quadratics_lies_between_its_bounds(seed, rho, scale):
    """Unnormalised: [1 / max |1 + rho l|, 1 / min |1 + rho l|], and it does not depend on the size of w."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1.0, 3.0, 6)
    assume(np.abs(1 + rho * values).min() > 1e-3)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    _, grad = quadratic_loss(q @ np.diag(values) @ q.T)
    w = [rng.standard_normal((2, 2)), rng.standard_normal(2)]
    big, small = (
        float(step("SSAM", [s * x for x in w], grad, rho, normalize=False).opt.last.gamma) for s in (scale, 1.0)
    )
    bounds = 1 / np.abs(1 + rho * values).max(), 1 / np.abs(1 + rho * values).min()
    assert bounds[0] * (1 - 1e-9) <= small <= bounds[1] * (1 + 1e-9)
    assert big == pytest.approx(small, rel=1e-9)


@given(seeds, radii, scales)
@pytest.mark.parametrize("name", ["SAM", "SSAM"])
def test_scaling_the_loss_scales_d_and_leaves_e(name, seed, rho, scale):
    w, grad = vectors(seed), field(seed)
    one = step(name, w, grad, rho)
    other = step(name, w, lambda v: [scale * x for x in grad(v)], rho)
    close(other.e, one.e)
    close(other.d, [scale * x for x in one.d])


@given(seeds, radii, scales)
def test_scaling_the_loss_and_shrinking_rho_leaves_usam(seed, rho, scale):
    w, grad = vectors(seed), field(seed)
    one = step("USAM", w, grad, rho)
    other = step("USAM", w, lambda v: [scale * x for x in grad(v)], rho / scale)
    close(other.e, one.e)
    close(other.d, [scale * x for x in one.d])


@given(seeds, radii, st.permutations(range(len(SHAPES))))
@pytest.mark.parametrize("name", ["SAM", "USAM", "SSAM"])
def test_the_order_of_the_parameters_does_not_matter(name, seed, rho, order):
    w, grad = vectors(seed), field(seed)
    back = np.argsort(order)

    def permuted(v):
        g = grad([v[i] for i in back])
        return [g[i] for i in order]

    one = step(name, w, grad, rho)
    other = step(name, [w[i] for i in order], permuted, rho)
    close([other.d[i] for i in back], one.d, rtol=1e-12)


@given(seeds, radii)
@pytest.mark.parametrize("name", ["SAM", "USAM", "SSAM"])
def test_l2_does_not_see_a_rotation(name, seed, rho):
    """One step commutes with an orthogonal change of coordinates."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    matrix = rng.standard_normal((5, 5))
    w = rng.standard_normal(5)

    def grad(v):
        return [matrix @ v[0] + np.sin(v[0])]

    one = step(name, [w], grad, rho)
    other = step(name, [q @ w], lambda v: [q @ grad([q.T @ v[0]])[0]], rho)
    close([q.T @ other.d[0]], one.d, rtol=1e-10)


@given(seeds, radii, st.integers(1, 4))
@pytest.mark.parametrize("name", ["SAM", "USAM", "SSAM"])
def test_cutting_a_tensor_into_groups_changes_nothing(name, seed, rho, pieces):
    """The norm is over everything that has rho > 0, however it is dealt out to tensors and groups."""
    rng = np.random.default_rng(seed)
    matrix, w = rng.standard_normal((8, 8)), rng.standard_normal(8)

    def grad(v):
        flat = np.concatenate(v)
        return np.split(matrix @ flat + np.sin(flat), np.cumsum([len(x) for x in v])[:-1])

    one = step(name, [w], grad, rho)
    cut = np.array_split(w, pieces)
    other = watch(lambda base: preset(name).build(base, rho=rho), cut, grad, group_options=[{}] * pieces)
    np.testing.assert_allclose(np.concatenate(other.d), one.d[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-26, 1e-23, 1e-20, 1e-10, 1e10, 1e18, 1e20, 1e35])
@pytest.mark.parametrize("name", ["SAM", "SSAM"])
def test_float32_gradients_of_any_size_never_leave_the_ball(name, scale):
    """|e| = rho where the norm can be represented; where its square under- or overflows, at most rho, or no step."""
    w = torch.nn.Parameter(torch.zeros(4))
    opt = preset(name).build(Recorder([w], lr=1e-3), rho=0.5)
    points = []

    def closure():
        points.append(w.detach().clone())
        w.grad = torch.tensor([3.0, 0.0, 4.0, 0.0]) * scale
        return torch.zeros(())

    opt.step(closure)
    length = float((points[-1] - points[0]).norm())
    assert length <= 0.5 * (1 + 1e-5)
    assert bool(w.isfinite().all())
    if 1e-20 <= scale <= 1e18:
        assert length == pytest.approx(0.5, rel=1e-5)
