"""Contract 6: fp16 under autocast, one scaler for two optimizers, and every wrong use named."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from harness import BASES, assert_same, every_two_call, every_variant, make

SCALE = 2.0**16


def half_step(variant, base, dtype, form="closure", steps=5):
    """Weights after some steps of a linear network; float16 by autocast and a scaler."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    opt = variant.build(BASES[base](model.parameters()), rho=0.05, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=dtype is torch.float16)
    x, y = torch.randn(32, 16), torch.randint(4, (32,))

    def run():
        opt.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is torch.float16):
            out = model(x)
        loss = F.cross_entropy(out.float(), y)
        if opt.rules.method.per_sample:
            return F.cross_entropy(out.float(), y, reduction="none")
        scaler.scale(loss).backward()
        return loss

    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(steps):
        if form == "closure":
            opt.step(run, scaler=scaler)
        else:
            run()
            opt.ascend(scaler=scaler)
            run()
            opt.descend(scaler=scaler)
        scaler.update()
    assert not bool(opt.last.skipped)
    return start, [p.detach() for p in model.parameters()], scaler.get_scale() if scaler.is_enabled() else SCALE


@every_variant
@pytest.mark.parametrize("base", ["sgd_momentum", "sgd_fused"])
def test_float16_equals_float32_within_its_tolerance(variant, base):
    start, exact, _ = half_step(variant, base, torch.float32)
    _, half, scale = half_step(variant, base, torch.float16)
    moved = sum(float((a - b).square().sum()) for a, b in zip(exact, start, strict=True)) ** 0.5
    apart = sum(float((a - b).square().sum()) for a, b in zip(half, exact, strict=True)) ** 0.5
    assert moved > 0.01
    assert apart < 0.02 * moved  # float16 has 11 bits; a wrong scale would be off by 2**16
    assert scale == SCALE


@every_two_call
def test_float16_in_two_calls(variant):
    _, one, _ = half_step(variant, "sgd", torch.float16)
    _, two, _ = half_step(variant, "sgd", torch.float16, form="two_call")
    assert_same(two, one)


@every_variant
@pytest.mark.parametrize("bad", [None, "generator", "critic"])
def test_one_scaler_for_two_optimizers(variant, bad):
    """A GAN: an overflow in one loss skips that optimizer alone, and backs the scale off once."""
    torch.manual_seed(1)
    nets = {"generator": nn.Linear(3, 4), "critic": nn.Linear(4, 1)}
    opts = {k: variant.build(BASES["sgd_momentum"](m.parameters()), model=m) for k, m in nets.items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    z = torch.randn(8, 3)

    def closure(name, fault):
        sign = 1.0 if name == "critic" else -1.0

        def run():
            opts[name].zero_grad()
            losses = sign * nets["critic"](nets["generator"](z)).squeeze(1).tanh() * fault
            if opts[name].rules.method.per_sample:
                return losses
            scaler.scale(losses.mean()).backward()
            return losses.mean()

        return run

    before = {k: [p.detach().clone() for p in m.parameters()] for k, m in nets.items()}
    for name in nets:
        opts[name].step(closure(name, float("inf") if name == bad else 1.0), scaler=scaler)
    scaler.update()
    for name, model in nets.items():
        same = all(torch.equal(p, q) for p, q in zip(model.parameters(), before[name], strict=True))
        assert same == (name == bad)
    assert scaler.get_scale() == (SCALE / 2 if bad else SCALE)


# Wrong uses


def scaled(variant, **options):
    session = make(variant, "mlp", dtype=torch.float32, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)

    def run():
        session.opt.zero_grad()
        loss = session.problem.loss()
        scaler.scale(loss).backward()
        return loss

    return session, scaler, run


def skip_per_sample(session):
    if session.opt.rules.method.per_sample:
        pytest.skip("the engine runs backward itself")


@every_variant
@pytest.mark.parametrize("with_closure", [False, True])
def test_the_scaler_may_not_step_the_optimizer_itself(variant, with_closure):
    session, scaler, run = scaled(variant)
    skip_per_sample(session)
    run()
    before = session.weights
    with pytest.raises(RuntimeError, match=r"opt\.step\(closure, scaler=scaler\)"):
        scaler.step(session.opt, *([run] if with_closure else []))
    assert_same(session.weights, before)


@every_variant
@pytest.mark.parametrize("whose", ["opt", "base"])
@pytest.mark.parametrize("rho", [0.1, 0.0], ids=["two passes", "one pass"])
def test_unscaling_in_the_closure_names_the_cause(variant, whose, rho):
    session, scaler, run = scaled(variant, rho=rho)
    skip_per_sample(session)
    target = session.opt if whose == "opt" else session.opt.base

    def unscaling():
        loss = run()
        scaler.unscale_(target)
        return loss

    before = session.weights
    with pytest.raises(RuntimeError, match=r"scaler\.unscale_\(\)"):
        session.opt.step(unscaling, scaler=scaler)
    assert_same(session.weights, before)
    scaler.update()
    session.opt.step(run, scaler=scaler)


@every_variant
def test_a_missing_update_names_the_cure(variant):
    session, scaler, run = scaled(variant)
    skip_per_sample(session)
    session.opt.step(run, scaler=scaler)
    before = session.weights
    with pytest.raises(RuntimeError, match=r"scaler\.update\(\)"):
        session.opt.step(run, scaler=scaler)
    assert_same(session.weights, before)


@every_variant
def test_a_failed_closure_may_be_tried_again_without_an_update(variant):
    session, scaler, run = scaled(variant)
    skip_per_sample(session)
    calls = []

    def failing():
        calls.append(None)
        if len(calls) == variant.passes:
            raise ValueError("no")
        return run()

    with pytest.raises(ValueError, match="no"):
        session.opt.step(failing, scaler=scaler)
    session.opt.step(run, scaler=scaler)
    scaler.update()
    assert scaler.get_scale() == SCALE


def test_no_private_state_of_the_scaler_is_touched():
    """Private names differ between torch's scalers, Lightning's and XLA's."""
    for path in Path(fenland.__file__).parent.rglob("*.py"):
        assert not re.search(r"scaler\._|_per_optimizer_states|_found_inf|_growth_tracker", path.read_text()), path
