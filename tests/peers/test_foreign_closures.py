"""Closures as other libraries teach them: what would go wrong in silence is refused, what is right works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland
from peer_loops import WHOLE_LOSS, assert_same, build, closure_for, fenland_state, loss_of, net, sgd, ssam

POINT = 4
STEPS = 3


def davda54(opt: Any, model: nn.Module, t: int) -> None:
    """github.com/davda54/sam: backward before `step`, a closure that only adds, zero_grad afterwards."""

    def closure() -> Tensor:
        loss = loss_of(model, t)
        loss.backward()
        return loss

    loss_of(model, t).backward()
    opt.step(closure)
    opt.zero_grad()


def added_to_a_penalty(opt: Any, model: nn.Module, t: int) -> None:
    """A penalty's gradient is left in p.grad, for the closure to add to."""
    sum(p.square().sum() for p in model.parameters()).mul(1e-2).backward()
    opt.step(lambda: backward(loss_of(model, t)))
    opt.zero_grad()


def half_zeroed(opt: Any, model: nn.Module, t: int) -> None:
    """The closure empties the head only."""
    loss_of(model, t).backward()

    def closure() -> Tensor:
        model.head.zero_grad()
        return backward(loss_of(model, t))

    opt.step(closure)
    opt.zero_grad()


def returns_its_gradients_by_hand(opt: Any, model: nn.Module, t: int) -> None:
    """torch.autograd.grad, added in place to what is there."""
    loss_of(model, t).backward()

    def closure() -> Tensor:
        loss = loss_of(model, t)
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
            p.grad.add_(g) if p.grad is not None else setattr(p, "grad", g)
        return loss

    opt.step(closure)
    opt.zero_grad()


def backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss


WRONG = {f.__name__: f for f in (davda54, added_to_a_penalty, half_zeroed, returns_its_gradients_by_hand)}


@pytest.mark.parametrize("loop", WRONG)
@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "LookSAM", "VaSSO", "ASAM"])
def test_gradients_that_are_there_before_and_still_there_are_refused(loop, preset):
    """Both lines of the cure are named, and everything is as before the step."""
    model = net()
    opt = build(preset, sgd(model), rho=0.2, model=model)
    torch.manual_seed(4)
    opt.step(closure_for(opt, lambda: loss_of(model)))
    opt.zero_grad()
    weights = {k: v.clone() for k, v in model.named_parameters()}
    state = fenland_state(opt)
    with pytest.raises(RuntimeError) as caught:
        WRONG[loop](opt, model, 1)
    said = str(caught.value)
    assert "zero_grad()" in said, said
    assert "backward" in said, said
    assert "before" in said, said
    assert_same({k: v.clone() for k, v in model.named_parameters()}, weights)
    assert str(fenland_state(opt)) == str(state)


def test_the_cure_that_is_named_works():
    """Take the backward before `step` away and open the closure with zero_grad(): the same optimizer goes on."""
    results = []
    for refused_before in (False, True):
        model = net()
        opt = ssam(model)
        start = copy.deepcopy(model.state_dict())
        if refused_before:
            with pytest.raises(RuntimeError, match="zero_grad"):
                davda54(opt, model, 0)
            model.load_state_dict(start)  # the backward before the step has counted one forward
        torch.manual_seed(4)
        for t in range(STEPS):
            opt.step(closure_for(opt, lambda t=t, m=model: loss_of(m, t)))
        results.append(dict(model.state_dict()))
    assert_same(*results)


# What is right, however it is written


def by_base(opt: Any, model: nn.Module) -> None:
    opt.base.zero_grad()


def by_model(opt: Any, model: nn.Module) -> None:
    model.zero_grad()


def by_hand(opt: Any, model: nn.Module) -> None:
    for p in model.parameters():
        p.grad = None


def in_place(opt: Any, model: nn.Module) -> None:
    opt.zero_grad(set_to_none=False)


def by_groups(opt: Any, model: nn.Module) -> None:
    for group in opt.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad = torch.zeros_like(p.grad)


def by_foreach(opt: Any, model: nn.Module) -> None:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if grads:
        torch._foreach_zero_(grads)


ZEROING: dict[str, Callable[[Any, nn.Module], None]] = {
    f.__name__: f for f in (by_base, by_model, by_hand, in_place, by_groups, by_foreach)
}


@pytest.mark.parametrize("way", ZEROING)
@pytest.mark.parametrize("before", ["nothing", "the last step's", "a backward pass"])
@pytest.mark.parametrize("many", [False, True])
def test_every_way_to_zero_in_the_closure_is_right(way, before, many):
    results = []
    for zeroing in (by_hand, ZEROING[way]):
        model = net()
        opt = ssam(model)
        torch.manual_seed(4)

        def closure(t: int, model: nn.Module = model, opt: Any = opt, zeroing: Any = zeroing) -> Tensor:
            zeroing(opt, model)
            return backward(loss_of(model, t))

        for t in range(STEPS):
            if before == "nothing":
                by_hand(opt, model)
            elif before == "a backward pass":
                backward(loss_of(model, t + 1))
            run = [lambda t=t: closure(t), lambda t=t: closure(t + 1)] if many else lambda t=t: closure(t)
            opt.step(run)
        results.append({**model.state_dict(), "rng": torch.get_rng_state()})
    assert_same(results[1], results[0])


@pytest.mark.parametrize("preset", WHOLE_LOSS)
def test_zeroing_after_the_step_is_right_too(preset):
    """No gradient on entry, none zeroed inside: fenland empties them between the passes."""
    results = []
    for inside in (True, False):
        model = net()
        opt = build(preset, sgd(model), rho=0.1, model=model)
        torch.manual_seed(4)
        for t in range(STEPS):
            opt.step(
                closure_for(opt, lambda t=t, m=model: loss_of(m, t))
                if inside
                else lambda t=t, m=model: backward(loss_of(m, t))
            )
            opt.zero_grad()
        results.append({**model.state_dict(), "rng": torch.get_rng_state()})
    assert_same(results[1], results[0])


def test_a_parameter_that_no_loss_reaches_may_keep_an_old_gradient():
    """Its gradient is stale, but the closure zeroes it: nothing is refused."""
    model = net()
    extra = nn.Parameter(torch.ones(3, dtype=torch.float64))
    opt = fenland.SAM(sgd([*model.parameters(), extra]), rho=0.1, model=model)
    extra.sum().backward()
    opt.step(closure_for(opt, lambda: loss_of(model)))
    assert torch.equal(extra.detach(), torch.ones(3, dtype=torch.float64))


def test_rho_zero_is_refused_as_well():
    """Otherwise turning rho up from 0 would turn a loop that runs into one that does not."""
    model = net()
    opt = ssam(model, rho=0.0)
    with pytest.raises(RuntimeError, match="zero_grad"):
        davda54(opt, model, 0)


def test_the_refused_step_leaves_buffers_and_generators():
    model = net()
    opt = ssam(model)
    torch.manual_seed(4)
    backward(loss_of(model))
    before = {**copy.deepcopy(dict(model.state_dict())), "rng": torch.get_rng_state()}
    with pytest.raises(RuntimeError, match="zero_grad"):
        opt.step(lambda: backward(loss_of(model)))
    assert_same({**model.state_dict(), "rng": torch.get_rng_state()}, before)
