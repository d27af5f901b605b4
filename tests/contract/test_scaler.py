"""Contract 6, as far as a CPU shows it: a scaler changes nothing; an overflow skips once and backs off once."""

import pytest
import torch

from harness import (
    TWO_CALL,
    Session,
    assert_same,
    every_base,
    every_perturb,
    every_variant,
    make,
    snapshot,
)

SCALE = 2.0**12


class Scaled:
    """A session that trains under a scaler, in both forms."""

    def __init__(self, session: Session) -> None:
        self.session, self.problem, self.opt = session, session.problem, session.opt
        self.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=1000)

    def backward(self, fault=None):
        self.opt.zero_grad()
        loss = self.problem.loss()
        self.scaler.scale(loss).backward()
        if fault is not None:
            next(p for p in self.problem.model.parameters() if p.grad is not None).grad.view(-1)[0] = fault
        return loss

    def step(self, t: int, form: str, faults: tuple = (None, None)) -> None:
        self.problem.start(t)
        rest = list(faults)
        if form == "closure":
            self.opt.step(lambda: self.backward(rest.pop(0)), scaler=self.scaler)
        else:
            self.backward(rest.pop(0))
            self.opt.ascend(scaler=self.scaler)
            self.backward(rest.pop(0))
            self.opt.descend(scaler=self.scaler)
        self.scaler.update()


def scaled(variant, base="sgd_momentum", **options) -> Scaled:
    return Scaled(make(variant, "conv_bn_dropout", base, dtype=torch.float32, **options))


forms = pytest.mark.parametrize("form", ["closure", "two_call"])
pytestmark = pytest.mark.filterwarnings("error")


def skip_unless(variant, form):
    if variant not in TWO_CALL:
        pytest.skip("not a two-pass method")


@every_variant
@every_base
@forms
@every_perturb
def test_a_power_of_two_scale_changes_nothing(variant, base, form, perturb):
    """2**12 divides out without rounding, so the weights agree to the last few bits."""
    skip_unless(variant, form)
    run = scaled(variant, base, perturb=perturb)
    for t in range(4):
        run.step(t, form)
    reference = make(variant, "conv_bn_dropout", base, dtype=torch.float32, perturb=perturb).run(4)
    for got, want in zip(run.session.weights, reference.weights, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert run.scaler.get_scale() == SCALE
    assert float(run.opt.last.grad_norm) == pytest.approx(float(reference.opt.last.grad_norm), rel=1e-5)


@every_variant
@every_base
@forms
@pytest.mark.parametrize("bad_pass", [1, 2])
@pytest.mark.parametrize("good_steps", [0, 2], ids=["first step", "later step"])
def test_an_overflow_skips_once_and_backs_off_once(variant, base, form, bad_pass, good_steps):
    skip_unless(variant, form)
    run = scaled(variant, base)
    for t in range(good_steps):
        run.step(t, form)
    run.opt.zero_grad()
    before = snapshot(run.session)
    run.step(good_steps, form, faults=(float("inf"), None) if bad_pass == 1 else (None, float("inf")))
    assert_same(snapshot(run.session), before)
    assert run.scaler.get_scale() == SCALE / 2
    assert bool(run.opt.last.skipped)
    run.step(good_steps, form)
    assert run.scaler.get_scale() == SCALE / 2
    assert not bool(run.opt.last.skipped)


@every_variant
@forms
def test_clipping_sees_unscaled_gradients(variant, form):
    skip_unless(variant, form)
    run = scaled(variant, "sgd", max_norm=0.05, lr=1.0)
    before = run.session.weights
    run.step(0, form)
    moved = sum(float((a - b).norm() ** 2) for a, b in zip(run.session.weights, before, strict=True)) ** 0.5
    assert moved == pytest.approx(0.05, rel=1e-3)


@every_variant
def test_a_disabled_scaler_is_no_scaler(variant):
    session = make(variant, "mlp", dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for t in range(3):
        session.problem.start(t)
        session.opt.step(session.problem.closure(session.opt), scaler=scaler)
        scaler.update()
    assert_same(session.weights, make(variant, "mlp", dtype=torch.float32).run(3).weights)
