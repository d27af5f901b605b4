"""Every scheduler of torch on the fenland optimizer: no warning, the base follows, before and after loading."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel

from harness import VARIANTS, assert_same, both_forms, make

MAKERS = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda t: 0.95),
    "StepLR": lambda o: lrs.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.5, 2),
    "LinearLR": lambda o: lrs.LinearLR(o, 0.1, 1.0, 4),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.1, 1.0, 2), lrs.ExponentialLR(o, 0.9)], [2]),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 8),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 8),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, 0.5, 2), lrs.ExponentialLR(o, 0.9)], o),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=0),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, max_lr=0.2, total_steps=20),
    "SWALR": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=3),
}
every_scheduler = pytest.mark.parametrize("name", MAKERS)


def test_none_of_torch_s_is_forgotten():
    def takes_optimizer(cls):
        return inspect.isclass(cls) and "optimizer" in inspect.signature(cls).parameters

    public = {n for n in lrs.__all__ if takes_optimizer(getattr(lrs, n)) and n != "LRScheduler"}
    assert public <= set(MAKERS) | {"SequentialLR", "ChainedScheduler"}


def advance(scheduler):
    scheduler.step(1.0) if isinstance(scheduler, lrs.ReduceLROnPlateau) else scheduler.step()


def rates(opt):
    return [(g["lr"], g.get("momentum"), g.get("betas")) for g in opt.param_groups]


def session_of(base, form="closure"):
    return make(VARIANTS[0], "mlp", base, form=form)


@every_scheduler
@both_forms
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw", "adamw_fused"])
def test_it_drives_the_base_as_it_drives_a_plain_optimizer(name, form, base):
    session = session_of(base, form)
    w = nn.Parameter(torch.ones(1, dtype=torch.float64))
    other = type(session.base)([w], **{k: v for k, v in session.base.defaults.items() if k in ("lr", "momentum")})
    scheduler, reference = MAKERS[name](session.opt), MAKERS[name](other)
    for t in range(8):
        session.step(t)
        advance(scheduler)
        w.grad = torch.ones_like(w)
        other.step()
        advance(reference)
        assert rates(session.opt) == rates(session.base)
        assert rates(session.opt) == rates(other)


@every_scheduler
@both_forms
def test_it_goes_on_after_loading(name, form):
    """Fresh objects with loaded states train as the originals do."""
    session = session_of("sgd_momentum", form)
    scheduler = MAKERS[name](session.opt)
    for t in range(3):
        session.step(t)
        advance(scheduler)
    fresh = session_of("sgd_momentum", form)
    other = MAKERS[name](fresh.opt)
    fresh.problem.model.load_state_dict(session.problem.model.state_dict())
    fresh.opt.load_state_dict(copy.deepcopy(session.opt.state_dict()))
    other.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    rng = torch.get_rng_state()
    for t in range(3, 7):
        session.step(t)
        advance(scheduler)
    torch.set_rng_state(rng)
    for t in range(3, 7):
        fresh.step(t)
        advance(other)
    assert rates(fresh.base) == rates(session.base)
    assert_same(fresh.weights, session.weights)


def test_a_scheduler_on_the_base_warns_of_nothing_either():
    """People who come from other libraries attach it there; both see the same groups."""
    session = session_of("sgd_momentum")
    scheduler = lrs.StepLR(session.opt.base, 1, gamma=0.5)
    session.step(0)
    scheduler.step()
    assert session.opt.param_groups[0]["lr"] == pytest.approx(0.05)


def test_an_averaged_model_beside_the_optimizer():
    """EMA and SWA read the weights between steps: w, never w + e."""
    session = session_of("sgd", "two_call")
    average = AveragedModel(session.problem.model, use_buffers=True)
    mean = None
    for t in range(4):
        session.step(t)
        average.update_parameters(session.problem.model)
        weights = session.weights
        mean = weights if mean is None else [m + (w - m) / (t + 1) for m, w in zip(mean, weights, strict=True)]
    for a, b in zip(average.module.parameters(), mean, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-12, atol=1e-12)
