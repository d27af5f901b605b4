"""Two fenland optimizers over one model: any order of calls is right, and a joint step is offered."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from module_hooks import any_global_hook
from peer_loops import (
    FORMS,
    assert_same,
    build,
    by_closure,
    closure_for,
    counted,
    loss_of,
    net,
    parameters,
    sam_by_hand,
)

POINT = 2
LR, RHO, STEPS = 0.1, 0.2, 4
MATRICES = ["body.0.weight", "head.weight"]
REST = ["body.0.bias", "body.1.weight", "body.1.bias", "head.bias"]
PARTS = [MATRICES, REST]


def two(model: nn.Module, preset: str = "SAM", **options: Any) -> tuple[Any, Any]:
    first, second = (torch.optim.SGD(parameters(model, names), lr=LR) for names in PARTS)
    return tuple(build(preset, base, **{"rho": RHO, "model": model, **options}) for base in (first, second))


def zero(*opts: Any) -> None:
    for opt in opts:
        opt.zero_grad()


ORDERS = {
    "last in, first out": ("a1", "a2", "-", "d2", "d1"),
    "first in, first out": ("a1", "a2", "-", "d1", "d2"),
    "the other first": ("a2", "a1", "-", "d2", "d1"),
    "crossed": ("a2", "a1", "-", "d1", "d2"),
}


def together(order: tuple[str, ...], opts: tuple[Any, Any], model: nn.Module, t: int) -> None:
    zero(*opts)
    loss_of(model, t).backward()
    calls = {"a": "ascend", "d": "descend"}
    for word in order:
        if word == "-":
            loss_of(model, t).backward()
        else:
            getattr(opts[int(word[1]) - 1], calls[word[0]])()


@pytest.mark.parametrize("order", ORDERS)
def test_two_ascents_at_once_in_any_order(order):
    """Both are at w + e in one second pass; each has its own norm."""
    model, want = net(), net()
    opts = two(model)
    torch.manual_seed(5)
    for t in range(STEPS):
        together(ORDERS[order], opts, model, t)
    got_rng = torch.get_rng_state()
    torch.manual_seed(5)
    for t in range(STEPS):
        sam_by_hand(want, PARTS, LR, RHO, t, joint=False)
    assert counted(model) == STEPS
    assert_same({k: v for k, v in model.state_dict().items()}, dict(want.state_dict()), 1e-12)
    assert torch.equal(got_rng, torch.get_rng_state())


@pytest.mark.parametrize("order", ORDERS)
def test_an_ascent_given_up_leaves_the_other_right(order):
    """restore() of one between the halves: the other's step is as if the first had not been there."""
    model, want = net(), net()
    opts, alone = two(model), two(want)
    first, second = ORDERS[order][:2]
    torch.manual_seed(5)
    loss_of(model).backward()
    opts[int(first[1]) - 1].ascend()
    opts[int(second[1]) - 1].ascend()
    opts[0].restore()
    loss_of(model).backward()
    opts[1].descend()
    torch.manual_seed(5)
    loss_of(want).backward()
    alone[1].ascend()
    loss_of(want).backward()
    alone[1].descend()
    assert_same(dict(model.state_dict()), dict(want.state_dict()))


@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "VaSSO", "LookSAM", "ASAM"])
@pytest.mark.parametrize("backwards", [False, True])
def test_one_after_the_other_equals_the_closure_form(preset, backwards):
    """Each has its own step with its own batch, as in alternating training."""
    results = []
    for form in FORMS:
        model = net()
        opts = two(model, preset)[:: -1 if backwards else 1]
        torch.manual_seed(5)
        for t in range(STEPS):
            for opt in opts:
                zero(*opts)
                FORMS[form](opt, lambda t=t, m=model: loss_of(m, t))
        assert counted(model) == 2 * STEPS, form
        results.append({**model.state_dict(), "rng": torch.get_rng_state()})
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


@pytest.mark.parametrize("form", FORMS)
def test_a_plain_optimizer_beside_it(form):
    """SAM for the matrices and AdamW for the rest, which steps with whichever gradient is there."""
    results = []
    for way in (form, "closure"):
        model = net()
        first = fenland.SAM(torch.optim.SGD(parameters(model, MATRICES), lr=LR), rho=RHO, model=model)
        second = torch.optim.AdamW(parameters(model, REST), lr=0.01)
        torch.manual_seed(5)
        for t in range(STEPS):
            second.zero_grad()
            FORMS[way](first, lambda t=t, m=model: loss_of(m, t))
            second.zero_grad()
            loss_of(model, t).backward()
            second.step()
        results.append({**model.state_dict(), "rng": torch.get_rng_state()})
        assert counted(model) == 2 * STEPS
    assert_same(*results)


# The joint step


def joint(model: nn.Module, opts: Any, t: int, **options: Any) -> torch.Tensor:
    def closure() -> torch.Tensor:
        zero(*opts)
        loss = loss_of(model, t)
        loss.backward()
        return loss

    return fenland.step_together(list(opts), closure, **options)


@pytest.mark.parametrize("norm", ["joint", "each"])
def test_step_together_by_the_definition(norm):
    model, want = net(), net()
    opts = two(model)
    torch.manual_seed(5)
    values = [float(joint(model, opts, t, norm=norm).detach()) for t in range(STEPS)]
    got_rng = torch.get_rng_state()
    torch.manual_seed(5)
    losses, state = [], torch.get_rng_state()
    for t in range(STEPS):
        torch.set_rng_state(state)
        losses.append(float(loss_of(copy.deepcopy(want), t).detach()))
        torch.set_rng_state(state)
        sam_by_hand(want, PARTS, LR, RHO, t, joint=norm == "joint")
        state = torch.get_rng_state()
    assert counted(model) == STEPS
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert torch.equal(got_rng, state)
    assert values == pytest.approx(losses, abs=1e-12)


@pytest.mark.parametrize("preset", ["SAM", "SSAM", "USAM", "GSAM", "GNP", "VaSSO", "LookSAM", "ASAM", "RST"])
def test_step_together_equals_one_optimizer_over_all(preset):
    """norm="joint" is the default: two bases with the same settings are one base with two groups."""
    model, want = net(), net()
    opts = two(model, preset)
    base = torch.optim.SGD([{"params": list(parameters(want, names))} for names in PARTS], lr=LR)
    one = build(preset, base, rho=RHO, model=want)
    torch.manual_seed(5)
    for t in range(STEPS):
        joint(model, opts, t)
    rng = torch.get_rng_state()
    torch.manual_seed(5)
    for t in range(STEPS):
        by_closure(one, lambda t=t: loss_of(want, t))
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("norm", ["joint", "each"])
def test_step_together_calls_the_closure_twice_and_each_base_once(norm):
    model = net()
    opts, seen = two(model), []
    for k, opt in enumerate(opts):
        opt.base.register_step_pre_hook(lambda o, a, kw, k=k: seen.append(k))
        opt.register_step_post_hook(lambda o, a, kw, k=k: seen.append(f"post {k}"))
    calls = []

    def closure() -> torch.Tensor:
        calls.append([p.detach().clone() for p in model.parameters()])
        zero(*opts)
        loss = loss_of(model)
        loss.backward()
        return loss

    fenland.step_together(list(opts), closure, norm=norm)
    assert len(calls) == 2
    assert sorted(map(str, seen)) == ["0", "1", "post 0", "post 1"]
    moved = [not torch.equal(a, b) for a, b in zip(*calls, strict=True)]
    assert sum(moved) >= 5, "all have moved in pass 2, but perhaps a bias before BatchNorm, which has no gradient"


@pytest.mark.parametrize("norm", ["joint", "each"])
@pytest.mark.parametrize("fails", [1, 2])
def test_an_exception_in_a_joint_step_leaves_all_as_before(norm, fails):
    model = net()
    opts = two(model, "VaSSO")
    torch.manual_seed(5)
    joint(model, opts, 0, norm=norm)
    before = {**copy.deepcopy(dict(model.state_dict())), "rng": torch.get_rng_state()}
    states, calls = [copy.deepcopy(o.state_dict()) for o in opts], []

    def closure() -> torch.Tensor:
        calls.append(1)
        zero(*opts)
        loss = loss_of(model)
        loss.backward()
        if len(calls) == fails:
            raise KeyError("data")
        return loss

    with pytest.raises(KeyError, match="data"):
        fenland.step_together(list(opts), closure, norm=norm)
    assert_same({**model.state_dict(), "rng": torch.get_rng_state()}, before)
    for opt, state in zip(opts, states, strict=True):
        assert str(opt.state_dict()) == str(state)
    joint(model, opts, 1, norm=norm)


def test_step_together_refuses_what_it_cannot_do():
    model = net()
    first, second = two(model)
    again = fenland.SAM(torch.optim.SGD(parameters(model, MATRICES), lr=LR), rho=RHO, model=model)
    plain = torch.optim.SGD(parameters(model, REST), lr=LR)
    closure = closure_for(first, lambda: loss_of(model))
    before = copy.deepcopy(dict(model.state_dict()))
    for bad, message in (
        ([], "optimizers"),
        ([first, first], "twice|same"),
        ([first, again], "parameter"),
        ([first, plain], "SGD"),
        (first, "list"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            fenland.step_together(bad, closure)
    with pytest.raises(ValueError, match="norm = 'both'"):
        fenland.step_together([first, second], closure, norm="both")
    with pytest.raises(TypeError, match="closure"):
        fenland.step_together([first, second], None)
    assert_same(dict(model.state_dict()), before)


@pytest.mark.parametrize("outer", ["SAM", "LookSAM"])
@pytest.mark.parametrize("inner", ["SAM", "SSAM"])
def test_a_closure_inside_another_optimizer_s_closure_is_refused(outer, inner):
    """The inner optimizer would step twice, once at the outer one's w + e."""
    model = net()
    first = build(outer, torch.optim.SGD(parameters(model, MATRICES), lr=LR), rho=RHO, model=model)
    second = build(inner, torch.optim.SGD(parameters(model, REST), lr=LR), rho=RHO, model=model)
    torch.manual_seed(5)
    before = {**copy.deepcopy(dict(model.state_dict())), "rng": torch.get_rng_state()}

    def nested() -> torch.Tensor:
        return second.step(closure_for(second, lambda: loss_of(model)))

    with pytest.raises(RuntimeError, match="step_together"):
        first.step(nested)
    assert_same({**model.state_dict(), "rng": torch.get_rng_state()}, before)
    by_closure(second, lambda: loss_of(model))
    by_closure(first, lambda: loss_of(model))


def test_steps_of_other_networks_inside_a_closure_are_nobody_s_business():
    """A critic that is trained while a generator's closure runs would step twice: refused, weights as before."""
    model, critic = net(), net()
    outer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO, model=model)
    inner = fenland.SAM(torch.optim.SGD(critic.parameters(), lr=LR), rho=RHO, model=critic)

    def nested() -> torch.Tensor:
        inner.step(closure_for(inner, lambda: loss_of(critic)))
        return closure_for(outer, lambda: loss_of(model))()

    before = copy.deepcopy(dict(model.state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="step_together"):
            outer.step(nested)
    assert_same(dict(model.state_dict()), before)


def test_the_reference_is_one_optimizer_over_two_groups():
    """The hand-written joint step against the engine, where one optimizer holds everything."""
    model, want = net(), net()
    one = fenland.SAM(
        torch.optim.SGD([{"params": list(parameters(model, n))} for n in PARTS], lr=LR), rho=RHO, model=model
    )
    torch.manual_seed(5)
    for t in range(STEPS):
        by_closure(one, lambda t=t: loss_of(model, t))
    torch.manual_seed(5)
    for t in range(STEPS):
        sam_by_hand(want, PARTS, LR, RHO, t, joint=True)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)


def test_without_a_model_a_joint_step_says_once_that_buffers_are_not_guarded():
    model = net(dropout=0.0)
    parts = [fenland.SAM(torch.optim.SGD(part.parameters(), lr=0.1), rho=0.1) for part in (model.body, model.head)]

    def closure() -> torch.Tensor:
        for part in parts:
            part.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            fenland.step_together(parts, closure)
    assert ["model=" in str(w.message) for w in caught] == [True]
    assert not any_global_hook()
