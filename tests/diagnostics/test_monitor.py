"""The monitor: what it collects is what the records say, it never waits for the device, and its alarms ring."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fenland
from fenland.diagnostics.monitor import FIELDS, Monitor
from harness import VARIANTS, every_variant, make, plain


@every_variant
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_it_holds_what_the_records_say(variant, batch):
    session = make(variant, "mlp", record_every=2)
    monitor, want = Monitor(session.opt, batch=batch), []
    for t in range(7):
        session.step(t)
        monitor.update()
        values = {name: getattr(session.opt.last, name) for name in FIELDS}
        want.append({name: float(x) for name, x in values.items() if x is not None})
    rows = monitor.read()
    assert [row.keys() for row in rows] == [row.keys() for row in want]
    for row, line in zip(rows, want, strict=True):
        for name, value in line.items():
            assert row[name] == pytest.approx(value, rel=1e-6)
    summary = monitor.summary()
    assert summary.steps == 7
    assert summary.skipped == 0
    assert summary.last["grad_norm"] == pytest.approx(want[-1]["grad_norm"], rel=1e-6)
    losses = [line["loss"] for line in want if "loss" in line]
    if losses:
        assert summary.means["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


class Watch(TorchDispatchMode):
    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func._schema.name in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
        return func(*args, **(kwargs or {}))


def test_it_reads_nothing_before_a_batch_is_full():
    session = make_sam()
    monitor = Monitor(session.opt, batch=5)
    for t in range(4):
        session.step(t)
        with Watch() as watch:
            monitor.update()
        assert watch.reads == 0


def make_sam(**options):
    return make(VARIANTS[0], "mlp", **options)


def test_skipped_steps_are_counted_and_spoil_no_mean():
    w = nn.Parameter(torch.ones(2))
    opt = fenland.SAM(torch.optim.SGD([w], lr=0.1))
    monitor = Monitor(opt)
    for value in (1.0, float("nan"), 1.0):

        def closure(value=value):
            w.grad = torch.full((2,), value)
            return torch.tensor(value)

        opt.step(closure)
        monitor.update()
    summary = monitor.summary()
    assert (summary.steps, summary.skipped) == (3, 1)
    assert summary.means["loss"] == 1.0


def alarms(opt, closure, steps=12, **options):
    monitor = Monitor(opt, batch=4, patience=5, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            opt.step(closure)
            monitor.update()
        monitor.summary()
    return [str(w.message) for w in caught]


def linear(dtype=torch.float32, n=4, curve=0.0, **options):
    torch.manual_seed(0)
    w = nn.Parameter((0.02 * torch.randn(n)).to(dtype))
    slope = torch.randn(n).to(dtype)
    opt = fenland.SAM(torch.optim.SGD([w], lr=0.0), record_every=1, **options)

    def closure():
        opt.zero_grad()
        loss = (slope * w).sum() + curve * (w**2).sum()
        loss.backward()
        return loss

    return opt, closure


def test_an_ascent_without_effect_rings_once():
    (message,) = alarms(*linear())  # a linear loss has the same gradient everywhere
    assert "inactive" in message
    assert "cosine 1" in message


def test_a_real_ascent_is_silent():
    """The Hessian is a multiple of the identity, so h is along g and differs in length only."""
    assert alarms(*linear(curve=5.0)) == []


def test_a_radius_that_rounding_changes_rings():
    messages = alarms(*linear(torch.bfloat16, 200_000, curve=5.0, rho=0.003))
    assert any("realised |e|" in m and "float32" in m for m in messages)


def test_too_few_samples_ring_nothing():
    assert alarms(*linear(), steps=3) == []


@pytest.mark.parametrize("options", [{"batch": 0}, {"patience": True}, {"batch": 1.5}])
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Monitor(make_sam().opt, **options)


def test_it_needs_a_fenland_optimizer():
    with pytest.raises(TypeError, match="fenland"):
        Monitor(plain().opt)
