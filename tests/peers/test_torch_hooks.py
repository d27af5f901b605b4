"""Hooks of torch fire as often, and see what they would see, as on the base."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import fenland
from peer_loops import FORMS, assert_same, build, loss_of, net, plain, sgd, ssam

POINT = 1
STEPS = 3
forms = pytest.mark.parametrize("form", FORMS)
TWO = ("two calls", "block")


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def train(form: str, opt: Any, model: nn.Module, steps: int = STEPS) -> None:
    torch.manual_seed(11)
    for t in range(steps):
        FORMS[form](opt, lambda t=t: loss_of(model, t))


@forms
@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "LookSAM", "MSAM", "RST"])
def test_step_hooks_fire_once_a_step_around_the_update(form, preset):
    model = net()
    opt = build(preset, sgd(model), rho=0.1, model=model)
    seen: list[tuple[str, Any, list[torch.Tensor]]] = []

    def note(when: str) -> Any:
        return lambda optimizer, args, kwargs: seen.append(
            (when, optimizer, [p.detach().clone() for p in model.parameters()])
        )

    opt.register_step_pre_hook(note("pre"))
    opt.register_step_post_hook(note("post"))
    starts, ends = [], []
    for t in range(STEPS):
        starts.append([p.detach().clone() for p in model.parameters()])
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        ends.append([p.detach().clone() for p in model.parameters()])
    assert [when for when, _, _ in seen] == ["pre", "post"] * STEPS
    assert all(optimizer is opt for _, optimizer, _ in seen)
    for t in range(STEPS):
        assert all(map(torch.equal, seen[2 * t][2], starts[t])), "the pre-hook sees w"
        assert all(map(torch.equal, seen[2 * t + 1][2], ends[t])), "the post-hook sees the new weights"


@pytest.mark.parametrize("form", TWO)
@pytest.mark.parametrize("fused", [False, True])
def test_in_two_calls_the_pre_hook_sees_and_may_change_d(form, fused):
    """As people clip in a hook: it acts on what the base is about to get, length factors included."""
    model, other = net(torch.float32), net(torch.float32)
    opt, reference = ssam(model, sgd(model, fused=fused)), ssam(other)
    handed: list[list[torch.Tensor]] = []

    def halve(optimizer: Any, args: Any, kwargs: Any) -> None:
        handed.append(gradients(model))
        for p in model.parameters():
            p.grad.mul_(0.5)

    expected: list[list[torch.Tensor]] = []

    def halve_at_base(optimizer: Any, args: Any, kwargs: Any) -> None:
        expected.append(gradients(other))
        for p in other.parameters():
            p.grad.mul_(0.5)

    opt.register_step_pre_hook(halve)
    reference.base.register_step_pre_hook(halve_at_base)
    train(form, opt, model)
    train("closure", reference, other)
    assert len(handed) == STEPS
    for got, want in zip(handed, expected, strict=True):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert_same(model, other, 1e-6)


@forms
def test_a_hook_on_a_fused_base_sees_d(form):
    """A fused base may take a factor on its way; who looks at its gradients must see d all the same."""
    seen = {}
    for fused in (False, True):
        model = net(torch.float32)
        opt = ssam(model, sgd(model, fused=fused))
        seen[fused] = []
        opt.base.register_step_pre_hook(lambda o, a, k, fused=fused, model=model: seen[fused].append(gradients(model)))
        train(form, opt, model)
    for got, want in zip(seen[True], seen[False], strict=True):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_pre_hook_may_replace_the_closure():
    """torch lets a step's pre-hook return other arguments."""
    model, other = net(), net()
    opt, reference = ssam(model), ssam(other)

    def another_batch(optimizer: Any, args: Any, kwargs: Any) -> Any:
        def closure() -> torch.Tensor:
            opt.zero_grad()
            loss = loss_of(model, 2)
            loss.backward()
            return loss

        return (args[0], closure, *args[2:]), kwargs

    opt.register_step_pre_hook(another_batch)
    torch.manual_seed(11)
    FORMS["closure"](opt, lambda: loss_of(model, 0))
    torch.manual_seed(11)
    FORMS["closure"](reference, lambda: loss_of(other, 2))
    assert_same(model, other)


@forms
def test_global_hooks_count_one_step(form):
    """A global step counter (loggers, profilers, dynamic schedulers) counts what the plain base would give it."""
    model = net()
    opt, seen = ssam(model), []
    handles = [
        register_optimizer_step_pre_hook(lambda o, a, k: seen.append(("pre", o))),
        register_optimizer_step_post_hook(lambda o, a, k: seen.append(("post", o))),
    ]
    try:
        train(form, opt, model)
    finally:
        for handle in handles:
            handle.remove()
    assert [when for when, _ in seen] == ["pre", "post"] * STEPS
    assert {id(o) for _, o in seen} in ({id(opt)}, {id(opt.base)}), "one optimizer has stepped, not two"


@forms
def test_the_profiler_records_one_step(form):
    model = net()
    opt = ssam(model)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train(form, opt, model)
    steps = [e.name for e in profile.events() if e.name.startswith("Optimizer.step#")]
    zeroing = [e.name for e in profile.events() if e.name.startswith("Optimizer.zero_grad#")]
    assert len(steps) == STEPS, steps
    assert len(zeroing) == (2 if form == "closure" else 1) * STEPS, zeroing


@forms
def test_removed_step_hooks_are_silent(form):
    model = net()
    opt, seen = ssam(model), []
    handles = [
        opt.register_step_pre_hook(lambda *a: seen.append(1)),
        opt.register_step_post_hook(lambda *a: seen.append(2)),
    ]
    for handle in handles:
        handle.remove()
    train(form, opt, model)
    assert not seen


# Hooks around checkpoints


def test_state_dict_hooks_see_and_replace_it():
    model = net()
    opt, calls = ssam(model), []
    train("closure", opt, model)
    without = opt.state_dict()

    def stamp(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        calls.append(("second", optimizer, set(state)))
        return {**state, "stamp": 3}

    opt.register_state_dict_pre_hook(lambda o: calls.append(("pre", o, None)))
    opt.register_state_dict_post_hook(stamp)
    opt.register_state_dict_post_hook(lambda o, s: calls.append(("first", o, set(s))), prepend=True)
    state = opt.state_dict()
    keys = set(without)
    assert calls == [("pre", opt, None), ("first", opt, keys), ("second", opt, keys)]
    assert state["stamp"] == 3
    assert state["param_groups"] == without["param_groups"]


def test_load_hooks_see_and_replace_it():
    model = net()
    opt, calls = ssam(model), []
    train("closure", opt, model)
    state = copy.deepcopy(opt.state_dict())
    state["param_groups"][0]["lr"] = 7.0

    def correct(optimizer: Any, given: dict[str, Any]) -> dict[str, Any]:
        calls.append(("pre", optimizer))
        return {**given, "param_groups": [{**g, "lr": 0.5} for g in given["param_groups"]]}

    opt.register_load_state_dict_pre_hook(correct)
    opt.register_load_state_dict_pre_hook(lambda o, s: calls.append(("first", o)), prepend=True)
    opt.register_load_state_dict_post_hook(lambda o: calls.append(("post", o)))
    opt.load_state_dict(state)
    assert calls == [("first", opt), ("pre", opt), ("post", opt)]
    assert opt.param_groups[0]["lr"] == opt.base.param_groups[0]["lr"] == 0.5
    assert state["param_groups"][0]["lr"] == 7.0, "the caller's dict is his own"


@pytest.mark.parametrize("wrapped", [False, True], ids=["base", "fenland"])
def test_a_remapping_hook_brings_state_to_its_parameters(wrapped):
    """torch's tutorial: save ids by name, load into an optimizer whose parameters come in another order."""

    def make(model: nn.Module, backwards: bool) -> Any:
        named = list(model.named_parameters())
        base = AdamW(named[::-1] if backwards else named, lr=0.01)
        return fenland.VaSSO(base, rho=0.1, model=model) if wrapped else base

    def by_name(optimizer: Any, given: dict[str, Any]) -> dict[str, Any]:
        mine = [n for g in optimizer.state_dict()["param_groups"] for n in g["param_names"]]
        theirs = {n: i for g in given["param_groups"] for n, i in zip(g["param_names"], g["params"], strict=True)}
        state = {k: given["state"][theirs[n]] for k, n in enumerate(mine)}
        groups = [{**g, "params": list(range(len(mine))), "param_names": mine} for g in given["param_groups"]]
        return {"state": state, "param_groups": groups}

    model, other = net(), net()
    first, second = make(model, False), make(other, True)
    torch.manual_seed(11)
    for t in range(STEPS):
        (FORMS["closure"] if wrapped else plain)(first, lambda t=t: loss_of(model, t))
    second.register_load_state_dict_pre_hook(by_name)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    where = dict(other.named_parameters())
    for name, p in model.named_parameters():
        assert torch.equal(second.state[where[name]]["exp_avg"], first.state[p]["exp_avg"]), name
    other.load_state_dict(model.state_dict())
    rng = torch.get_rng_state()
    for opt, m in ((first, model), (second, other)):
        torch.set_rng_state(rng)
        (FORMS["closure"] if wrapped else plain)(opt, lambda m=m: loss_of(m, 1))
    assert_same(other, model, 1e-12)


@pytest.mark.parametrize("kind", ["state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post"])
def test_removed_checkpoint_hooks_are_silent_and_the_base_keeps_its_own(kind):
    model = net()
    opt, ours, theirs = ssam(model), [], []
    handle = getattr(opt, f"register_{kind}_hook")(lambda *a: ours.append(a[0]))
    getattr(opt.base, f"register_{kind}_hook")(lambda *a: theirs.append(a[0]))
    opt.load_state_dict(opt.state_dict())
    assert (ours, theirs) == ([opt], [opt.base])
    handle.remove()
    opt.load_state_dict(opt.state_dict())
    assert (ours, theirs) == ([opt], [opt.base] * 2)
