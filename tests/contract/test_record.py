"""`opt.last`: every field against the twin."""

import math

import numpy as np
import pytest
import torch

from cases import hessian
from harness import Recorder, every_two_call, every_variant, make, preset, watch
from twins import TWINS, dot, norm, quadratic_loss

OPTIONS = {"SAM": [{}], "USAM": [{}], "SSAM": [{}, {"normalize": False}, {"cap": 0.9}]}
ROWS = [(name, options) for name in TWINS for options in OPTIONS[name]]
rows = pytest.mark.parametrize(("name", "options"), ROWS, ids=[f"{n}{o or ''}" for n, o in ROWS])
RHO = 0.3


def _problem(seed: int = 1):
    torch.manual_seed(seed)
    matrix, start = hessian(negative=True).numpy(), torch.randn(10, dtype=torch.float64).numpy()
    return quadratic_loss(matrix), [start[:6].reshape(2, 3).copy(), start[6:].copy()]


def _seen(name, options, **more):
    (loss, grad), w = _problem()
    seen = watch(lambda base: preset(name).build(base, rho=RHO, **options, **more), w, grad, loss=loss)
    return seen.opt.last, TWINS[name](w, grad, RHO, **options), loss, w


@rows
def test_losses_and_sharpness(name, options):
    last, step, loss, w = _seen(name, options)
    up = loss([x + e for x, e in zip(w, step.e, strict=True)])
    assert float(last.loss) == pytest.approx(loss(w), rel=1e-12)
    assert float(last.loss_ascent) == pytest.approx(up, rel=1e-11)
    assert float(last.sharpness) == pytest.approx(up - loss(w), rel=1e-9)


@rows
def test_norms_radius_and_gamma(name, options):
    last, step, _, _ = _seen(name, options)
    assert float(last.grad_norm) == pytest.approx(norm(step.g), rel=1e-12)
    assert float(last.ascent_grad_norm) == pytest.approx(norm(step.h), rel=1e-11)
    assert float(last.radius) == pytest.approx(norm(step.e), rel=1e-11)
    assert float(last.gamma) == pytest.approx(norm(step.g) / norm(step.h), rel=1e-11)
    assert not bool(last.skipped)


@rows
def test_cosine_and_realised_radius_on_recorded_steps(name, options):
    last, step, _, _ = _seen(name, options, record_every=1)
    assert float(last.cosine) == pytest.approx(dot(step.g, step.h) / norm(step.g) / norm(step.h), rel=1e-10)
    assert float(last.realised_radius) == pytest.approx(norm(step.e), rel=1e-10)


@rows
def test_recording_does_not_change_the_step(name, options):
    (loss, grad), w = _problem()
    runs = [
        watch(lambda base, n=n: preset(name).build(base, rho=RHO, record_every=n, **options), w, grad, loss=loss)
        for n in (None, 1)
    ]
    for a, b in zip(runs[0].after, runs[1].after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    assert len(runs[1].points) == len(runs[0].points)


@every_variant
def test_the_record_is_cheap_to_hold(variant):
    """Scalar tensors without a graph: keeping a list of records keeps no model alive."""
    session = make(variant, "conv_bn_dropout").run(2)
    last = session.opt.last
    for name in ("loss", "loss_ascent", "sharpness", "grad_norm", "ascent_grad_norm", "gamma", "radius", "skipped"):
        value = getattr(last, name)
        assert isinstance(value, torch.Tensor), name
        assert value.numel() == 1, name
        assert not value.requires_grad, name


@every_variant
def test_a_record_is_not_overwritten_by_the_next_step(variant):
    session = make(variant, "mlp", lr=1.0).run(1)
    first = session.opt.last
    values = float(first.loss), float(first.grad_norm), float(first.gamma)
    session.run(2, start=1)
    assert (float(first.loss), float(first.grad_norm), float(first.gamma)) == values
    assert float(session.opt.last.loss) != values[0]


@every_variant
def test_cosine_is_recorded_on_every_nth_step_only(variant):
    if variant.preset.name not in TWINS:
        pytest.skip("the combine may keep g and then always knows the cosine")
    session = make(variant, "mlp", record_every=3)
    known = []
    for t in range(6):
        session.step(t)
        cosine = session.opt.last.cosine
        known.append(cosine is not None and not math.isnan(float(cosine)))
    assert known == [True, False, False, True, False, False]


@every_two_call
def test_two_calls_fill_the_record_too(variant):
    one, two = make(variant, "mlp").run(2), make(variant, "mlp", form="two_call").run(2)
    for name in ("grad_norm", "ascent_grad_norm", "gamma", "radius", "skipped"):
        assert float(getattr(two.opt.last, name)) == float(getattr(one.opt.last, name)), name


@every_variant
def test_a_step_without_ascent_says_so(variant):
    """rho = 0: no second loss was measured, so none is invented."""
    session = make(variant, "mlp", rho=0.1).run(1)
    for group in session.opt.param_groups:
        group["rho"] = 0.0
    last = session.run(1, start=1).opt.last
    assert last.gamma is None or float(last.gamma) == 1.0
    assert last.radius is None or float(last.radius) == 0.0
    assert last.ascent_grad_norm is None or float(last.ascent_grad_norm) == float(last.grad_norm)
    assert (
        last.loss_ascent is None or math.isnan(float(last.loss_ascent)) or float(last.loss_ascent) == float(last.loss)
    )


@rows
def test_the_realised_radius_with_groups_is_the_length_of_e(name, options):
    (_, grad), w = _problem(2)
    radii = (0.1, 0.4)
    seen = watch(
        lambda base: preset(name).build(base, record_every=1, **options),
        w,
        grad,
        group_options=[{"rho": r} for r in radii],
    )
    want = TWINS[name](w, grad, radii, **options)
    assert float(seen.opt.last.realised_radius) == pytest.approx(norm(want.e), rel=1e-10)
    assert float(seen.opt.last.radius) == pytest.approx(norm(want.e), rel=1e-10)


def test_nothing_recorded_before_the_first_step():
    opt = preset("SAM").build(Recorder([torch.nn.Parameter(torch.ones(2))]))
    assert opt.last is None or opt.last.loss is None


@every_variant
def test_ssam_s_d_has_the_length_of_g(variant):
    if variant.preset.name not in ("SSAM", "SSAM-U") or variant.options.get("cap"):
        pytest.skip("not renormalised")
    (_, grad), w = _problem(3)
    seen = watch(lambda base: variant.build(base, rho=RHO), w, grad)
    assert norm(seen.d) == pytest.approx(norm(grad(w)), rel=1e-12)
