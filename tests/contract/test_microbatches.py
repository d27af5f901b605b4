"""m-SAM, step([closure, ...]): d = mean_i combine(g_i, h_i), one ascent per micro-batch."""

import numpy as np
import pytest
import torch

from cases import hessian
from harness import Recorder, assert_same, every_perturb, every_variant, make, preset, snapshot
from twins import TWINS, quadratic_loss

OPTIONS = {"SAM": [{}], "USAM": [{}], "SSAM": [{}, {"normalize": False}, {"cap": 0.9}]}
ROWS = [(name, options) for name in TWINS for options in OPTIONS[name]]


def parts(session, k):
    """One closure per micro-batch; each is a mean over its own samples."""
    n = len(session.problem.x[0])

    def one(i):
        def closure():
            session.opt.zero_grad()
            loss = session.problem.loss(slice(i * n // k, (i + 1) * n // k))
            loss.backward()
            return loss

        return closure

    return [one(i) for i in range(k)]


@pytest.mark.parametrize(("name", "options"), ROWS, ids=[f"{n}{o or ''}" for n, o in ROWS])
@every_perturb
def test_d_is_the_mean_of_the_micro_batches_own_d(name, options, perturb):
    torch.manual_seed(3)
    fields = [quadratic_loss(hessian(negative=i == 1).numpy())[1] for i in range(3)]
    start = torch.randn(10, dtype=torch.float64).numpy()
    w = [start[:6].reshape(2, 3), start[6:]]
    params = [torch.nn.Parameter(torch.tensor(x)) for x in w]
    base = Recorder(params)
    opt = preset(name).build(base, rho=0.3, perturb=perturb, **options)

    def closure_of(grad):
        def closure():
            for p, g in zip(params, grad([p.detach().numpy() for p in params]), strict=True):
                p.grad = torch.tensor(g)
            return torch.zeros(())

        return closure

    opt.step([closure_of(grad) for grad in fields])
    steps = [TWINS[name](w, grad, 0.3, **options) for grad in fields]
    (d,) = base.handed
    for k, got in enumerate(d):
        np.testing.assert_allclose(got.numpy(), sum(s.d[k] for s in steps) / 3, rtol=1e-11, atol=1e-13)


@every_variant
@every_perturb
def test_one_micro_batch_is_the_plain_step(variant, perturb):
    session = make(variant, "conv_bn_dropout", perturb=perturb)
    for t in range(3):
        session.problem.start(t)
        session.opt.step(parts(session, 1))
    reference = make(variant, "conv_bn_dropout", perturb=perturb).run(3)
    for a, b in zip(session.weights, reference.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@every_variant
@every_perturb
def test_lr_zero_changes_nothing(variant, perturb):
    session = make(variant, "conv_bn_dropout", lr=0.0, perturb=perturb)
    before = session.weights
    session.opt.step(parts(session, 3))
    assert_same(session.weights, before)
    assert session.problem.pass_index == 3 * variant.passes


@every_variant
@pytest.mark.parametrize("bad", [0, 1, 3, 5])
def test_an_exception_in_any_pass_leaves_everything_as_before(variant, bad):
    session = make(variant, "conv_bn_dropout").run(1)
    before = snapshot(session)
    calls = []

    def breaking(closure):
        def run():
            loss = closure()
            calls.append(0)
            if len(calls) == bad + 1:
                raise RuntimeError("boom")
            return loss

        return run

    if bad >= 3 * variant.passes:
        pytest.skip("no such pass")
    with pytest.raises(RuntimeError, match="boom"):
        session.opt.step([breaking(c) for c in parts(session, 3)])
    assert_same(snapshot(session), before)


@every_variant
@pytest.mark.parametrize("bad", [0, 1, 3, 5])
def test_a_non_finite_micro_batch_skips_the_whole_step(variant, bad):
    session = make(variant, "conv_bn_dropout").run(1)
    before = snapshot(session)
    calls = []

    def spoiling(closure):
        def run():
            loss = closure()
            calls.append(0)
            if len(calls) == bad + 1:
                next(session.problem.model.parameters()).grad.view(-1)[0] = float("nan")
            return loss

        return run

    if bad >= 3 * variant.passes:
        pytest.skip("no such pass")
    session.opt.step([spoiling(c) for c in parts(session, 3)])
    assert bool(session.opt.last.skipped)
    assert_same(snapshot(session), before)


@every_variant
def test_the_empty_list_is_refused(variant):
    with pytest.raises((TypeError, ValueError), match="closure"):
        make(variant, "mlp").opt.step([])
