"""16-bit parameters: norms and e in float32, restore exact, and honesty about how much of e is left."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fenland
from harness import VARIANTS, assert_same, every_perturb, every_variant, make

LOW = [torch.bfloat16, torch.float16]
low = pytest.mark.parametrize("dtype", LOW, ids=["bfloat16", "float16"])


@every_variant
@every_perturb
def test_200_steps_of_lr_zero_leave_every_bit(variant, perturb):
    session = make(variant, "mlp", "sgd", dtype=torch.bfloat16, lr=0.0, perturb=perturb, rho=0.5)
    before = session.weights
    session.run(200)
    assert_same(session.weights, before)


@every_variant
@low
def test_a_zero_gradient_is_no_nan(variant, dtype):
    if variant.build(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)).rules.method.per_sample:
        pytest.skip("needs the losses of samples")
    w = nn.Parameter(torch.randn(50).to(dtype))
    opt = variant.build(torch.optim.SGD([w], lr=0.1), rho=0.1)
    before = w.detach().clone()

    def closure():
        opt.zero_grad()
        loss = (w * 0).sum()
        loss.backward()
        return loss

    for _ in range(2):
        opt.step(closure)
    assert bool(torch.isfinite(w).all())
    assert_same(w.detach(), before)


def test_the_norm_of_half_gradients_does_not_overflow():
    """4 * 60000^2 is far beyond float16, whose largest number is 65504."""
    w = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    opt = fenland.SAM(torch.optim.SGD([w], lr=0.0), rho=1.0)
    points = []

    def closure():
        points.append(w.detach().float().clone())
        w.grad = torch.full((4,), 6e4, dtype=torch.float16)
        return torch.zeros(())

    opt.step(closure)
    assert float(opt.last.grad_norm) == pytest.approx(1.2e5, rel=1e-3)
    torch.testing.assert_close(points[1], torch.full((4,), 0.5))


def sampled(n, dtype, *, rho=0.05, scale=0.02, every=1, chunks=1, build=fenland.SAM):
    torch.manual_seed(0)
    params = [nn.Parameter((scale * torch.randn(n // chunks)).to(dtype)) for _ in range(chunks)]
    slopes = [torch.randn(n // chunks).to(dtype) for _ in range(chunks)]
    opt = build(torch.optim.SGD(params, lr=0.0), rho=rho, record_every=every)

    def closure():
        for p, g in zip(params, slopes, strict=True):
            p.grad = g.clone()
        return torch.zeros(())

    return params, slopes, opt, closure


@pytest.mark.filterwarnings("ignore:.*cannot hold the perturbation")
@pytest.mark.parametrize(("n", "dtype"), [(100, torch.float32), (10_000, torch.bfloat16), (1_000_000, torch.bfloat16)])
def test_the_measured_cosine_and_length_are_true(n, dtype):
    """Against NumPy in float64, from the weights that the second pass really saw."""
    params, slopes, opt, closure = sampled(n, dtype)
    points = []

    def seen():
        points.append(params[0].detach().double().numpy().copy())
        return closure()

    opt.step(seen)
    e = points[1] - points[0]
    g = slopes[0].double().numpy()
    assert float(opt.last.realised_radius) == pytest.approx(np.linalg.norm(e), rel=1e-5)
    want = e @ g / np.linalg.norm(e) / np.linalg.norm(g)
    assert float(opt.last.realised_cosine) == pytest.approx(want, rel=1e-4)
    if dtype is torch.float32:
        assert want == pytest.approx(1.0, abs=1e-4)


def warned(n, dtype, steps=3, **options):
    _, _, opt, closure = sampled(n, dtype, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            opt.step(closure)
    return [str(w.message) for w in caught], opt


def test_one_warning_names_the_value_and_the_cure():
    (message,), opt = warned(1_000_000, torch.bfloat16)
    assert f"{float(opt.last.realised_cosine):.2f}" in message
    assert re.search(r"bfloat16 .*float32.*torch\.autocast", message)


def test_no_warning_where_e_is_held():
    assert warned(1000, torch.bfloat16)[0] == []
    assert warned(100_000, torch.float32)[0] == []


def test_the_first_step_of_low_precision_is_measured_unasked():
    assert "bfloat16" in warned(1_000_000, torch.bfloat16, every=None)[0][0]
    _, _, opt, closure = sampled(1000, torch.bfloat16, every=None)
    known = []
    for _ in range(3):
        opt.step(closure)
        known.append(opt.last.realised_cosine is not None)
    assert known == [True, False, False]


def test_measuring_costs_on_sampled_steps_only():
    _, _, opt, closure = sampled(1000, torch.float32, every=2)
    known = []
    for _ in range(4):
        opt.step(closure)
        known.append(opt.last.realised_cosine is not None)
    assert known == [True, False, True, False]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_variant_realises_its_e_in_float64(variant):
    session = make(variant, "mlp", record_every=1).run(3)
    last = session.opt.last
    if last.realised_cosine is None:
        pytest.skip("no ascent on this step, or along a curve")
    assert float(last.realised_cosine) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
def test_a_hundred_million_bfloat16_parameters():
    """DESIGN section 4: about a third of e is left; 6 % of the weights move."""
    (message,), opt = warned(10**8, torch.bfloat16, steps=1, chunks=20)
    assert float(opt.last.realised_cosine) == pytest.approx(0.33, abs=0.03)
    assert "0.3" in message
