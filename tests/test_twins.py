"""Each preset against its slow twin: two tensors, float64, per-group radii, caps, zero gradients, many steps."""

import numpy as np
import pytest
import torch

from cases import hessian
from harness import preset, watch
from twins import TWINS, SGDTwin, norm, quadratic_loss

OPTIONS = {
    "SAM": [{}],
    "USAM": [{}],
    "SSAM": [{}, {"normalize": False}, {"cap": 0.9}, {"cap": 1.0, "normalize": False}],
}
ROWS = [(name, options) for name in TWINS for options in OPTIONS[name]]
rows = pytest.mark.parametrize(("name", "options"), ROWS, ids=[f"{n}{o or ''}" for n, o in ROWS])


def _problem(seed: int, negative: bool = True):
    torch.manual_seed(seed)
    matrix, start = hessian(negative=negative).numpy(), torch.randn(10, dtype=torch.float64).numpy()
    return quadratic_loss(matrix), [start[:6].reshape(2, 3).copy(), start[6:].copy()]


def _close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@rows
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_step_is_the_twins(name, options, seed):
    (loss, grad), w = _problem(seed)
    seen = watch(lambda base: preset(name).build(base, rho=0.3, **options), w, grad, loss=loss)
    want = TWINS[name](w, grad, 0.3, **options)
    _close(seen.points[0], w)
    _close(seen.e, want.e)
    _close(seen.d, want.d)
    _close(seen.after, [x - 0.1 * d for x, d in zip(w, want.d, strict=True)])


@rows
@pytest.mark.parametrize("radii", [(0.1, 0.4), (0.0, 0.4), (0.4, 0.0)])
def test_a_radius_per_group(name, options, radii):
    (_, grad), w = _problem(4)
    groups = [{"rho": r} for r in radii]
    seen = watch(lambda base: preset(name).build(base, rho=0.9, **options), w, grad, group_options=groups)
    want = TWINS[name](w, grad, radii, **options)
    _close(seen.e, want.e)
    _close(seen.d, want.d)


@rows
def test_many_steps_with_momentum_and_decay(name, options):
    (_, grad), w = _problem(5, negative=False)
    params = [torch.nn.Parameter(torch.tensor(x)) for x in w]
    opt = preset(name).build(torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01), rho=0.2, **options)
    twin = SGDTwin(0.05, 0.9, 0.01)

    def closure():
        for p, g in zip(params, grad([p.detach().numpy() for p in params]), strict=True):
            p.grad = torch.tensor(g)
        return torch.zeros(())

    for _ in range(40):
        opt.step(closure)
        w = twin.step(w, TWINS[name](w, grad, 0.2, **options).d)
    for p, x in zip(params, w, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-9, atol=1e-12)


@rows
def test_a_callable_radius_is_asked_with_the_step(name, options):
    """The first step is step 0."""
    (_, grad), w = _problem(6)
    asked = []

    def rho(step):
        asked.append(int(step))
        return 0.02 * (step + 1)

    params = [torch.nn.Parameter(torch.tensor(x)) for x in w]
    opt = preset(name).build(torch.optim.SGD(params, lr=0.1), rho=rho, **options)
    points = []

    def closure():
        points.append([p.detach().numpy().copy() for p in params])
        for p, g in zip(params, grad(points[-1]), strict=True):
            p.grad = torch.tensor(g)
        return torch.zeros(())

    for t in range(8):
        opt.step(closure)
        want = TWINS[name](points[-2], grad, 0.02 * (t + 1), **options)
        _close([b - a for a, b in zip(*points[-2:], strict=True)], want.e)
    assert sorted(set(asked)) == list(range(8))


@rows
@pytest.mark.parametrize("max_norm", [0.05, 1e6])
def test_max_norm_clips_d_once_and_never_the_ascent(name, options, max_norm):
    (_, grad), w = _problem(7)
    seen = watch(lambda base: preset(name).build(base, rho=0.3, max_norm=max_norm, **options), w, grad)
    want = TWINS[name](w, grad, 0.3, **options)
    _close(seen.e, want.e)
    factor = min(1.0, max_norm / norm(want.d))
    for got, d in zip(seen.d, want.d, strict=True):
        # torch's own clipping divides by (norm + 1e-6); both are right
        np.testing.assert_allclose(got, factor * d, rtol=1e-5 if factor < 1 else 1e-11)


@rows
def test_a_zero_gradient_is_a_plain_step(name, options):
    w = [np.ones((2, 3)), np.ones(4)]
    seen = watch(lambda base: preset(name).build(base, rho=0.3, **options), w, lambda v: [0.0 * x for x in v])
    _close(seen.after, w)
    _close(seen.points[-1], w)
    assert all(np.isfinite(x).all() for x in seen.after)


def test_ssam_survives_a_zero_gradient_at_the_ascent_point():
    """f = w^2/2 in one dimension with curvature -1/rho' at the ascent: h = 0 and gamma falls back to 1."""
    calls = []

    def grad(w):
        calls.append(0)
        return [np.ones(3)] if len(calls) == 1 else [np.zeros(3)]

    seen = watch(lambda base: preset("SSAM").build(base, rho=0.3), [np.ones(3)], grad)
    _close(seen.after, [np.ones(3)])
    assert float(seen.opt.last.gamma) == 1.0
