"""Accelerate's loop against the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fenland

pytest.importorskip("accelerate")

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from fenland.integrations.accelerate import SharpnessAwareStep
from trainer_cases import assert_close, batches, loss_fn, net, plain_loop, seed, sgd, ssam

CLIP = 0.05


@pytest.fixture(autouse=True)
def fresh_state():
    yield
    for shared in (AcceleratorState, GradientState, PartialState):
        shared._reset_state()


def halving(opt: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)


def loop(
    every: int = 1,
    *,
    scaler: Any = None,
    build: Any = ssam,
    epochs: int = 1,
    scheduler: Any = None,
    rows: Any = None,
    **options: Any,
) -> tuple[Any, SharpnessAwareStep, list[float]]:
    """The loop of the documentation."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=every)
    accelerator.scaler = scaler  # Accelerate refuses fp16 without a GPU; this is the scaler it would make there
    inner = net()
    loader = torch.utils.data.DataLoader(rows or batches(), batch_size=None)
    raw = build(inner)
    parts = [inner, raw, loader, *([scheduler(raw)] if scheduler else [])]
    model, opt, loader, *schedule = accelerator.prepare(*parts)
    step = SharpnessAwareStep(accelerator, model, opt, **options)
    logged = []
    for epoch in range(epochs):
        for i, (x, y) in enumerate(loader):
            seed(epoch * len(batches()) + i)
            with accelerator.accumulate(model):
                logged.append(float(step(loss_fn, model, x, y)))
                for s in schedule:
                    s.step()
    return inner, step, logged


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("clip", [None, CLIP])
def test_the_loop_equals_the_plain_one(accumulate, clip):
    inner, step, logged = loop(accumulate, epochs=2, max_norm=clip)
    model = net()
    opt = ssam(model, max_norm=clip)
    assert logged == pytest.approx(plain_loop(model, opt, accumulate=accumulate, epochs=2), abs=1e-6)
    assert_close(inner, model)
    assert inner.forwards == 2 * 12
    torch.testing.assert_close(step.opt.last.loss, opt.last.loss)
    torch.testing.assert_close(step.opt.last.gamma, opt.last.gamma)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [None, CLIP])
def test_a_scaler_is_unscaled_once_and_updated_once_a_step(accumulate, fused, clip):
    def build(model: nn.Module) -> Any:
        return ssam(model, sgd(model, fused=fused))

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    inner, _, _ = loop(accumulate, scaler=scaler, build=build, max_norm=clip)
    assert scaler._growth_tracker == 6 // accumulate
    model = net()
    plain_loop(model, ssam(model, max_norm=clip), accumulate=accumulate)
    assert_close(inner, model, 2e-6)


@pytest.mark.parametrize("with_scaler", [False, True])
def test_an_overflow_skips_the_step_and_its_schedule(with_scaler):
    """The second micro-batch is infinite; the scale backs off once."""
    rows = batches()
    rows[1] = (rows[1][0] * float("inf"), rows[1][1])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12) if with_scaler else None
    inner, step, _ = loop(2, scaler=scaler, scheduler=halving, rows=rows[:2])
    assert step.opt.last.skipped
    assert step.optimizer.step_was_skipped
    assert step.opt.param_groups[0]["lr"] == 0.3
    assert_close(inner, net(), 0)  # buffers too, though two forwards have run
    if scaler is not None:
        assert scaler.get_scale() == 2.0**11


def test_micro_is_m_sam():
    inner, _, logged = loop(3, accumulate="micro")
    model = net()
    assert logged == pytest.approx(plain_loop(model, ssam(model), accumulate=3, micro=True), abs=1e-6)
    assert_close(inner, model)
    assert inner.forwards == 12


def test_a_scheduler_steps_with_the_optimizer():
    _, step, _ = loop(2, scheduler=halving)
    assert step.opt.param_groups[0]["lr"] == pytest.approx(0.3 / 8)


def test_resume_is_exact(tmp_path):
    def run(folder: Any, save: bool) -> nn.Module:
        accelerator = Accelerator(cpu=True)
        inner = net()
        model, opt = accelerator.prepare(inner, ssam(inner))
        step = SharpnessAwareStep(accelerator, model, opt)
        rows = batches()
        if not save:
            accelerator.load_state(folder)
        for i in range(0 if save else 3, 6):
            if save and i == 3:
                accelerator.save_state(folder)
            step(loss_fn, model, *rows[i])
        return inner

    whole = run(tmp_path / "state", save=True)
    fresh = run(tmp_path / "state", save=False)
    assert_close(fresh, whole, 0)


def test_an_exception_leaves_the_weights_and_the_next_step_is_clean():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    inner = net()
    model, opt = accelerator.prepare(inner, ssam(inner))
    step = SharpnessAwareStep(accelerator, model, opt)
    rows = batches()

    def breaks(*args: Any) -> Any:
        if inner.forwards == 3:
            raise KeyError("data")
        return loss_fn(*args)

    def two_batches() -> None:
        for x, y in rows[:2]:
            with accelerator.accumulate(model):
                step(breaks, model, x, y)

    with pytest.raises(KeyError, match="data"):
        two_batches()
    assert_close(inner, net(), 0)
    assert not step._replay.held


def test_what_cannot_be_right_is_refused():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    inner = net()
    model, plain = accelerator.prepare(inner, sgd(inner))
    with pytest.raises(TypeError, match=r"is a SGD: must be a fenland optimizer"):
        SharpnessAwareStep(accelerator, model, plain)
    step = SharpnessAwareStep(accelerator, model, accelerator.prepare(ssam(inner)))
    with pytest.raises(ValueError, match="pass the batch"):
        step(lambda: torch.ones(()))
    loss_fn(model, *batches()[0]).backward()
    with pytest.raises(RuntimeError, match="without a closure"):
        step.optimizer.step()


@pytest.mark.parametrize("preset", ["ESAM", "KSAM"])
def test_single_samples_are_for_the_plain_loop(preset):
    accelerator = Accelerator(cpu=True)
    inner = net()
    raw = getattr(fenland, preset)(sgd(inner), rho=0.1, model=inner)
    model, opt = accelerator.prepare(inner, raw)
    with pytest.raises(ValueError, match=f"{type(raw.rules.method).__name__} needs the losses of single samples"):
        SharpnessAwareStep(accelerator, model, opt)
