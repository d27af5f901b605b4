"""Contract 9 without an accelerator: the flow that never asks the host, forced upon CPU tensors.

Fused bases of the CPU take `found_inf` and `grad_scale` as those of CUDA do, so the whole path runs; what only a GPU
shows is the order of its streams.
"""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fenland.algebra import Algebra
from harness import VARIANTS, assert_same, buffers, make

FUSED = ["sgd_fused", "adamw_fused"]
fused = pytest.mark.parametrize("base", FUSED)
SCALE = 2.0**12


def on_device(session) -> bool:
    """Force the flow of an accelerator; whether this variant has it at all (some need one look a step)."""
    conductor = session.opt._runner
    conductor.on_host = False
    session.run(1)
    return not conductor.host_decides()


def session_of(variant, base, **options):
    return make(variant, "conv_bn_dropout", base, dtype=torch.float32, **options)


def step(session, scaler=None, fault=(None, None), t=0):
    """One step under an optional scaler, with a fault in either pass."""
    faults = list(fault)
    session.problem.start(t)

    def run():
        session.opt.zero_grad()
        loss = session.problem.loss()
        (loss if scaler is None else scaler.scale(loss)).backward()
        value = faults.pop(0) if faults else None
        if value is not None:
            next(p for p in session.problem.model.parameters() if p.grad is not None).grad.view(-1)[0] = value
        return loss

    session.opt.step(run, scaler=scaler)
    if scaler is not None:
        scaler.update()


def seen(session):
    """Without the generators and the count of steps, which go on where the host does not know of the skip."""
    return session.weights, copy.deepcopy(session.base.state_dict()), buffers(session.problem.model)


def fill_free_memory_with_garbage() -> None:
    """What the allocator hands out next is NaN."""
    for size in (1, 3, 4, 9, 16, 36, 64, 192, 1024):
        garbage = [torch.full((size,), float("nan")) for _ in range(20)]
        del garbage


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@fused
@pytest.mark.parametrize("scaled", [False, True])
def test_it_trains_as_the_host_flow_does(variant, base, scaled):
    session = session_of(variant, base)
    if not on_device(session):
        pytest.skip("this variant looks at its numbers on the host")
    reference = None
    for run in (session, None):
        if run is None:  # seeded as the first
            run = reference = session_of(variant, base).run(1)
        scaler = torch.amp.GradScaler("cpu", init_scale=SCALE) if scaled else None
        for t in range(1, 6):
            step(run, scaler, t=t)
    assert_same(session.weights, reference.weights)
    assert_same(session.base.state_dict(), reference.base.state_dict())


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@fused
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bad_pass", [1, 2])
@pytest.mark.parametrize("first", [False, True], ids=["later step", "first step"])
def test_a_skipped_step_changes_nothing(variant, base, scaled, bad_pass, first):
    """Weights, momentum, counters and buffers; from memory full of NaN, which uninitialised momentum would show."""
    session = session_of(variant, base)
    if first:
        session.opt._runner.on_host = False
    elif not on_device(session):
        pytest.skip("this variant looks at its numbers on the host")
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE) if scaled else None
    session.opt.zero_grad()
    before = seen(session)
    fill_free_memory_with_garbage()
    step(session, scaler, (float("inf"), None) if bad_pass == 1 else (None, float("nan")))
    assert_same(seen(session), before)
    assert bool(session.opt.last.skipped)
    assert scaler is None or scaler.get_scale() == SCALE / 2
    fill_free_memory_with_garbage()
    step(session, scaler)
    assert not bool(session.opt.last.skipped)
    assert all(bool(torch.isfinite(w).all()) for w in session.weights)
    assert scaler is None or scaler.get_scale() == SCALE / 2


class Watch(TorchDispatchMode):
    """Fails on every operation that waits for the device."""

    WAITS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::item", "aten::nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        assert name not in self.WAITS, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@fused
@pytest.mark.parametrize("options", [{}, {"max_norm": 0.1}, {"record_every": 1}], ids=str)
def test_nothing_waits_for_the_device(variant, base, options, monkeypatch):
    session = session_of(variant, base, **options)
    if not on_device(session):
        pytest.skip("this variant looks at its numbers on the host")
    # Only a CPU's norms are looked at: for float32's range, and for a gradient of no length.
    monkeypatch.setattr(Algebra, "looks", False)
    with Watch():
        session.run(2, start=1)
    assert not bool(session.opt.last.skipped)


def test_the_watch_sees_what_waits():
    with Watch(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.ones(()))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@fused
def test_a_copy_keeps_the_flow_of_its_own(variant, base):
    """The decision is made from where the parameters are, not from what the original was told."""
    session = session_of(variant, base)
    on_device(session)
    assert copy.deepcopy(session.opt)._runner.on_host
