"""Bases with an interface of their own: what they have is reached through fenland, or they are refused by name."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import fenland
from peer_bases import BASES, CurvatureFromGraph, DPOptimizer, Lookahead, ScheduleFree, adafactor, small
from peer_loops import FORMS, assert_same, build, closure_for, fenland_state, loss_of, plain

POINT = 8
STEPS = 4
bases = pytest.mark.parametrize("name", BASES)
Make = Callable[[Any], Any]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # on import of torch.distributed.optim
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph:UserWarning"),
]


def make_of(name: str) -> Make:
    package, make = BASES[name]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    return make


def served(make: Make, net: nn.Module, **options: Any) -> Any | None:
    """The fenland optimizer; None where the base is refused by name, with a reason, untouched."""
    base = make(net.parameters())
    groups, attributes = [dict(g) for g in base.param_groups], set(vars(base))
    try:
        return fenland.SAM(base, **options)
    except (TypeError, ValueError) as error:
        said = str(error)
        assert type(base).__name__ in said, said
        assert len(said) > len(type(base).__name__) + 20, f"no reason: {said}"
        assert [dict(g) for g in base.param_groups] == groups
        assert set(vars(base)) == attributes
        return None


def step_by_hand(model: nn.Module, base: Any, rho: float, t: int) -> None:
    """SAM from its definition around any base."""
    params = list(model.parameters())
    there = copy.deepcopy(model)
    g = torch.autograd.grad(loss_of(model, t), params)
    norm = torch.sqrt(sum((x**2).sum() for x in g))
    with torch.no_grad():
        for p, x in zip(there.parameters(), g, strict=True):
            p.add_(x * rho / norm)
    for p, h in zip(params, torch.autograd.grad(loss_of(there, t), list(there.parameters())), strict=True):
        p.grad = h
    base.step()


@bases
@pytest.mark.parametrize("form", FORMS)
def test_without_an_ascent_it_is_the_base_bit_for_bit(name, form):
    make, model, want = make_of(name), small(), small()
    opt = served(make, model, rho=0.0, model=model)
    if opt is None:
        return
    alone = make(want.parameters())
    for t in range(STEPS):
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        plain(alone, lambda t=t: loss_of(want, t))
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


@bases
@pytest.mark.parametrize("form", FORMS)
def test_with_an_ascent_it_is_sam_around_the_base(name, form):
    make, model, want = make_of(name), small(), small()
    opt = served(make, model, rho=0.1, model=model)
    if opt is None:
        return
    alone = make(want.parameters())
    for t in range(STEPS):
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        step_by_hand(want, alone, 0.1, t)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-10)


@bases
@pytest.mark.parametrize("preset", ["SAM", "VaSSO", "LookSAM"])
def test_its_checkpoint_goes_round(name, preset):
    """Saved half-way and loaded into a fresh one: the same run, as with the base alone."""
    make, model = make_of(name), small()
    if served(make, small(), rho=0.1) is None:
        return

    def fresh(m: nn.Module) -> Any:
        return build(preset, make(m.parameters()), rho=0.1, model=m)

    opt = fresh(model)
    for t in range(2):
        opt.step(closure_for(opt, lambda t=t: loss_of(model, t)))
    other = copy.deepcopy(model)
    resumed = fresh(other)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert str(fenland_state(resumed)) == str(fenland_state(opt))
    for t in range(2, 5):
        for o, m in ((opt, model), (resumed, other)):
            o.step(closure_for(o, lambda t=t, m=m: loss_of(m, t)))
    assert_same(dict(other.state_dict()), dict(model.state_dict()))


@bases
def test_what_the_base_has_is_reached(name):
    """Every public method and attribute of the base that fenland does not define answers as the base's own."""
    make, model = make_of(name), small()
    opt = served(make, model, rho=0.1, model=model)
    if opt is None:
        return
    ours = set(dir(fenland.SharpnessAware))
    for attribute in {
        a for a in (*dir(type(opt.base)), *vars(opt.base)) if not a.startswith("_") or a == "_get_lr"
    } - ours:
        if not hasattr(opt.base, attribute):
            continue
        assert hasattr(opt, attribute), attribute
        got, want = getattr(opt, attribute), getattr(opt.base, attribute)
        assert got == want or got is want, attribute


# Schedule-free


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_schedule_free_switches_through_the_wrapper(form, rho):
    model, want = small(), small()
    opt, alone = fenland.SAM(ScheduleFree(model.parameters()), rho=rho, model=model), ScheduleFree(want.parameters())
    for epoch in range(2):
        opt.train()
        alone.train()
        for t in range(2):
            FORMS[form](opt, lambda t=t: loss_of(model, t))
            step_by_hand(want, alone, rho, t) if rho else plain(alone, lambda t=t: loss_of(want, t))
        opt.eval()
        alone.eval()
        assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-10 if rho else 0.0)
        if epoch == 0:
            opt.load_state_dict(copy.deepcopy(opt.state_dict()))


@pytest.mark.parametrize("form", FORMS)
def test_schedule_free_in_eval_mode_raises_and_counts_nothing(form):
    model = small()
    opt = fenland.SAM(ScheduleFree(model.parameters()), rho=0.1, model=model)
    opt.train()
    FORMS[form](opt, lambda: loss_of(model))
    opt.eval()
    before, state = copy.deepcopy(dict(model.state_dict())), fenland_state(opt)
    opt.zero_grad()
    with pytest.raises(Exception, match="train mode"):
        FORMS[form](opt, lambda: loss_of(model))
    assert_same(dict(model.state_dict()), before)
    assert str(fenland_state(opt)) == str(state)


def test_schedule_free_at_the_ascent_point_is_refused():
    """train() and eval() move weights: between ascend() and descend() they would move w + e."""
    model = small()
    opt = fenland.SAM(ScheduleFree(model.parameters()), rho=0.1, model=model)
    opt.train()
    FORMS["closure"](opt, lambda: loss_of(model))
    opt.zero_grad()
    loss_of(model).backward()
    opt.ascend()
    with pytest.raises(RuntimeError, match=r"descend\(\)|restore\(\)"):
        opt.eval()
    opt.restore()
    opt.eval()


def test_schedule_free_through_accelerate():
    """`AcceleratedOptimizer.train()` looks for the method on what it wraps."""
    accelerate = pytest.importorskip("accelerate")
    model = small(torch.float32)
    raw = fenland.SAM(ScheduleFree(model.parameters()), rho=0.1, model=model)
    opt = accelerate.Accelerator(cpu=True).prepare(raw)
    opt.train()
    assert raw.base.param_groups[0]["train_mode"] is True
    opt.eval()
    assert raw.base.param_groups[0]["train_mode"] is False


# Adafactor


def test_adafactor_with_its_own_rate_and_its_schedule():
    transformers = pytest.importorskip("transformers")
    model, want = small(torch.float32), small(torch.float32)
    opt, alone = fenland.SAM(adafactor(model.parameters()), rho=0.1, model=model), adafactor(want.parameters())
    schedules = [transformers.optimization.AdafactorSchedule(o) for o in (opt, alone)]
    for t in range(STEPS):
        FORMS["closure"](opt, lambda t=t: loss_of(model, t))
        step_by_hand(want, alone, 0.1, t)
        for schedule in schedules:
            schedule.step()
        rates = [[float(rate) for rate in schedule.get_last_lr()] for schedule in schedules]
        assert rates[0] == pytest.approx(rates[1], rel=1e-4)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-5)


@pytest.mark.parametrize("wrap", ["WSAM", "TiedToLearningRate"])
def test_what_needs_a_learning_rate_says_so_before_anything_steps(wrap):
    """lr=None is Adafactor's own business: a rule that multiplies by lr says at construction that it cannot."""
    pytest.importorskip("transformers")
    model = small(torch.float32)
    base = adafactor(model.parameters())
    groups = [dict(g) for g in base.param_groups]

    def refused() -> Any:
        if wrap == "WSAM":
            return fenland.WSAM(base, rho=0.1, model=model)
        rho = fenland.TiedToLearningRate(rho_min=0.01, rho_max=0.1, lr_max=0.1)
        return fenland.SAM(base, rho=rho, model=model)

    with pytest.raises((TypeError, ValueError), match="lr"):
        refused()
    assert [dict(g) for g in base.param_groups] == groups


# Bases that do not step with p.grad


def grad_samples(model: nn.Module, t: int = 0) -> None:
    loss_of(model, t).backward()
    for p in model.parameters():
        p.grad_sample = torch.stack([p.grad] * 4)


def test_a_private_optimizer_is_refused_by_name():
    """Opacus: the base would step with per-sample gradients of both passes, whatever d is."""
    model = small()
    base = DPOptimizer(SGD(model.parameters(), lr=0.1), noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=4)
    with pytest.raises((TypeError, ValueError), match=r"DPOptimizer.*(grad_sample|per-sample)"):
        fenland.SAM(base, rho=0.1, model=model)
    assert "rho" not in base.param_groups[0]
    grad_samples(model)
    base.step()


@pytest.mark.parametrize("kind", ["stand-in", "AdaHessian", "SophiaH"])
@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_a_base_that_differentiates_the_gradient_is_served_or_refused_by_name(kind, form):
    if kind == "stand-in":
        make: Make = CurvatureFromGraph
    else:
        po = pytest.importorskip("pytorch_optimizer")
        make = lambda p: getattr(po, kind)(p, lr=0.01)  # noqa: E731
    model, want = small(), small()
    try:
        opt = fenland.SAM(make(model.parameters()), rho=0.0, model=model)
    except (TypeError, ValueError) as error:
        assert type(make(want.parameters())).__name__ in str(error)  # noqa: PT017 - one of two right answers
        return
    alone = make(want.parameters())

    def graph(m: nn.Module, o: Any, t: int) -> Any:
        def closure() -> torch.Tensor:
            o.zero_grad()
            loss = loss_of(m, t)
            torch.autograd.backward(loss, create_graph=True)
            return loss

        return closure

    for rho in (0.0, 0.1):
        opt.param_groups[0]["rho"] = rho
        for t in range(2):
            torch.manual_seed(t)
            try:
                if form == "closure":
                    opt.step(graph(model, opt, t))
                else:
                    graph(model, opt, t)()
                    opt.ascend()
                    graph(model, opt, t)()
                    opt.descend()
            except (RuntimeError, ValueError, TypeError) as error:
                assert type(opt.base).__name__ in str(error), error  # noqa: PT017 - one of two right answers
                return
            if rho == 0.0:
                torch.manual_seed(t)
                graph(want, alone, t)()
                alone.step()
        if rho == 0.0:
            assert_same(dict(model.state_dict()), dict(want.state_dict()))


# Groups and state that are properties


def test_a_wrapper_s_groups_stay_one_with_its_inner_optimizer_s():
    model = small()
    base = Lookahead(SGD(model.parameters(), lr=0.1))
    opt = served(lambda p: base, model, rho=0.1, model=model)
    if opt is None:
        return
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert opt.param_groups[0] is base.param_groups[0] is base.optimizer.param_groups[0]
    opt.param_groups[0]["lr"] = 0.0
    before = copy.deepcopy(dict(model.state_dict()))
    FORMS["closure"](opt, lambda: loss_of(model))
    assert_same(dict(model.state_dict()), before)


def test_zero_grad_of_the_base_is_the_one_that_runs():
    """A base may keep more than p.grad."""

    class Counts(SGD):
        zeroed = 0

        def zero_grad(self, set_to_none: bool = True) -> None:
            self.zeroed += 1
            super().zero_grad(set_to_none)

    model = small()
    opt = fenland.SAM(Counts(model.parameters(), lr=0.1), rho=0.1, model=model)
    opt.zero_grad()
    assert opt.base.zeroed == 1
    FORMS["closure"](opt, lambda: loss_of(model))
    assert opt.base.zeroed == 3


def test_a_private_name_of_the_base_is_not_mistaken_for_ours():
    """Forwarding ends at what fenland has itself: state, groups, hooks and `step` are not the base's."""
    model = small()
    opt = fenland.SAM(SGD(model.parameters(), lr=0.1), rho=0.1, model=model)
    opt.base.step_size, opt.base.last = 3, "theirs"
    assert opt.step_size == 3
    assert opt.last != "theirs"
    assert copy.deepcopy(opt).base is not opt.base
    assert not hasattr(opt, "no_such_method")


def test_a_base_whose_step_needs_a_closure_is_refused_by_name():
    class Searching(torch.optim.SGD):
        def step(self, closure: Any) -> Any:
            return super().step(closure)

    model = small()
    base = Searching(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"base is Searching, whose step\(\) needs a closure"):
        fenland.SAM(base, rho=0.1, model=model)
    assert "rho" not in base.param_groups[0]


@pytest.mark.parametrize("kind", ["AdaHessian", "SophiaH"])
def test_bases_that_differentiate_the_gradient_are_refused_in_these_words(kind):
    model = small()
    made = type(kind, (torch.optim.SGD,), {})  # they are known by their names
    bases = [made(model.parameters(), lr=0.1)]
    if importlib.util.find_spec("pytorch_optimizer"):
        bases.append(getattr(importlib.import_module("pytorch_optimizer"), kind)(model.parameters(), lr=0.1))
    for base in bases:
        with pytest.raises(
            TypeError, match=rf"{kind}, which needs backward\(create_graph=True\), whose graph does not"
        ):
            fenland.SAM(base, rho=0.1, model=model)
