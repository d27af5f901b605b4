"""Radii belong to groups, not to positions; a constructor that refuses has changed nothing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from peer_loops import FORMS, assert_same, batch, build, closure_for, loss_of, net, sgd, ssam

POINT = 13
SIZES = {"a": 0.1, "b": 0.2, "c": 0.3}


def rho_a(step: int) -> float:
    return 0.1 + 0.01 * step


def rho_b(step: int) -> float:
    return 0.2 + 0.01 * step


def rho_c(step: int) -> float:
    return 0.3 + 0.01 * step


RHOS = {"a": rho_a, "b": rho_b, "c": rho_c}


class Three(nn.Module):
    """Three tensors with a gradient each that depends on nobody else: every group's radius can be read off its move."""

    def __init__(self) -> None:
        super().__init__()
        for k, name in enumerate("abc"):
            self.register_parameter(name, nn.Parameter(torch.full((2,), 1.0 + k, dtype=torch.float64)))

    def forward(self) -> torch.Tensor:
        return sum(p.sum() for p in self.parameters())


def three(callables: bool = True, wrap: Any = fenland.SAM, default: Any = 0.05) -> tuple[Three, Any]:
    model = Three()
    values = RHOS if callables else SIZES
    groups = [{"params": [model.get_parameter(n)], "rho": values[n], "name": n} for n in "abc"]
    return model, wrap(torch.optim.SGD(groups, lr=0.0), rho=default, model=model)


def radii_seen(model: Three, opt: Any) -> dict[str, float]:
    """Each group's radius as weights show it: e_k = rho_k g_k / ||g||, all gradients being 1."""
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    seen: dict[str, float] = {}

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = model()
        loss.backward()
        seen.update({n: float((p.detach() - start[n])[0]) for n, p in model.named_parameters()})
        return loss

    opt.step(closure)
    members = {id(p) for g in opt.param_groups for p in g["params"]}
    n = sum(p.numel() for p in model.parameters() if id(p) in members)
    return {name: round(e * n**0.5, 9) for name, e in seen.items() if id(model.get_parameter(name)) in members}


def expected(names: str, step: int) -> dict[str, float]:
    return {n: pytest.approx(RHOS[n](step)) for n in names}


SURGERY = {
    "first away": (lambda opt: opt.param_groups.pop(0), "bc"),
    "middle away": (lambda opt: opt.param_groups.pop(1), "ac"),
    "del": (lambda opt: opt.param_groups.__delitem__(0), "bc"),
    "reversed": (lambda opt: opt.param_groups.reverse(), "abc"),
    "another list": (lambda opt: setattr(opt, "param_groups", opt.param_groups[::-1][:2]), "bc"),
    "another list on the base": (lambda opt: setattr(opt.base, "param_groups", opt.base.param_groups[1:]), "bc"),
    "slice": (lambda opt: opt.param_groups.__setitem__(slice(None), opt.param_groups[2:]), "c"),
}


@pytest.mark.parametrize("surgery", SURGERY)
@pytest.mark.parametrize("step", [0, 2])
def test_a_callable_radius_stays_with_its_group(surgery, step):
    model, opt = three()
    for _ in range(step):
        radii_seen(model, opt)
    act, left = SURGERY[surgery]
    act(opt)
    assert radii_seen(model, opt) == expected(left, step)
    assert {g["name"]: g["rho"] for g in opt.param_groups} == expected(left, step)


@pytest.mark.parametrize("surgery", SURGERY)
def test_numbers_too_and_through_a_checkpoint(surgery):
    model, opt = three()
    act, left = SURGERY[surgery]
    act(opt)
    radii_seen(model, opt)
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert radii_seen(model, opt) == expected(left, 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_keep_each_group_s_radius(copied):
    model, opt = three()
    opt.param_groups.pop(0)
    both = copied({"model": model, "opt": opt})
    assert radii_seen(both["model"], both["opt"]) == expected("bc", 0)
    assert radii_seen(model, opt) == expected("bc", 0)


def test_groups_that_come_back_and_new_ones():
    model, opt = three()
    first = opt.param_groups.pop(0)
    assert radii_seen(model, opt) == expected("bc", 0)
    opt.add_param_group({"params": first["params"], "rho": rho_c, "name": "a"})
    seen = radii_seen(model, opt)
    assert seen == {"a": pytest.approx(rho_c(1)), **expected("bc", 1)}


def test_a_parameter_is_replaced_as_in_gaussian_splatting():
    """Points are pruned: a new parameter of another shape takes the old one's place, with its part of the state."""
    model = net()
    opt = fenland.VaSSO(
        torch.optim.Adam([{"params": [p], "name": n, "rho": rho_a} for n, p in model.named_parameters()], lr=0.01),
        rho=0.1,
        model=model,
    )
    for t in range(2):
        opt.step(closure_for(opt, lambda t=t: loss_of(model, t)))
    for group in opt.param_groups:
        if group["name"] != "head.weight":
            continue
        old = group["params"][0]
        kept = opt.state.pop(old)
        new = nn.Parameter(old.detach()[:2].clone())
        group["params"][0] = new
        opt.state[new] = {k: (v[:2].clone() if v.ndim else v) for k, v in kept.items() if isinstance(v, torch.Tensor)}
        model.head.weight = new
    del opt.state[model.head.bias]  # this one's state starts anew
    model.head.bias = nn.Parameter(model.head.bias.detach()[:2].clone())
    opt.param_groups[-1]["params"] = [model.head.bias]
    x, y = batch(0)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y.clamp_max(1))
        loss.backward()
        return loss

    before = model.head.weight.detach().clone()
    opt.step(closure)
    assert float(opt.last.radius) == pytest.approx(rho_a(2))
    assert not torch.equal(before, model.head.weight)
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    opt.step(closure)


@pytest.mark.parametrize("steps", [0, 1])
def test_wrapping_again_keeps_a_group_s_own_radius(steps):
    """A second wrapper over the same base: the groups' own callables and numbers are theirs, the default is new."""
    model = Three()
    groups = [
        {"params": [model.a], "rho": rho_a, "name": "a"},
        {"params": [model.b], "rho": 0.2, "name": "b"},
        {"params": [model.c], "name": "c"},
    ]
    base = torch.optim.SGD(groups, lr=0.0)
    first = fenland.SAM(base, rho=0.05, model=model)
    for _ in range(steps):
        radii_seen(model, first)
    second = fenland.SAM(base, rho=0.4, model=model)
    assert radii_seen(model, second) == {"a": pytest.approx(rho_a(0)), "b": pytest.approx(0.2), "c": pytest.approx(0.4)}


def test_a_default_callable_serves_groups_without_their_own():
    model = Three()
    groups = [{"params": [model.a]}, {"params": [model.b], "rho": 0.2}, {"params": [model.c]}]
    opt = fenland.SAM(torch.optim.SGD(groups, lr=0.0), rho=rho_c, model=model)
    assert radii_seen(model, opt) == {"a": pytest.approx(0.3), "b": pytest.approx(0.2), "c": pytest.approx(0.3)}
    opt.param_groups.pop(0)
    assert radii_seen(model, opt) == {"b": pytest.approx(0.2), "c": pytest.approx(0.31)}


def test_a_scheduler_of_rho_by_hand_wins():
    """Who writes group["rho"] between steps means it, callable or not."""
    model, opt = three(callables=False)
    opt.param_groups[1]["rho"] = 0.7
    opt.param_groups.pop(0)
    assert radii_seen(model, opt) == {"b": pytest.approx(0.7), "c": pytest.approx(0.3)}
    opt.param_groups[1]["rho"] = rho_a
    assert radii_seen(model, opt)["c"] == pytest.approx(rho_a(1))


# Refused constructors


def late_refusal(model: nn.Module, base: Any) -> Any:
    """The last group's rho is what is wrong: the first ones have been looked at by then."""
    base.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=torch.float64))], "rho": -1.0})
    return fenland.SAM(base, rho=0.1, model=model)


REFUSED = {
    "rho negative": lambda m, b: fenland.SAM(b, rho=-0.1, model=m),
    "rho nan": lambda m, b: fenland.SAM(b, rho=float("nan")),
    "rho a string": lambda m, b: fenland.SAM(b, rho="0.1"),
    "rho fails": lambda m, b: fenland.SAM(b, rho=lambda t: -1.0),
    "last group": late_refusal,
    "nonfinite": lambda m, b: fenland.SAM(b, nonfinite="ignore"),
    "sync": lambda m, b: fenland.SAM(b, sync="none"),
    "max_norm": lambda m, b: fenland.SAM(b, max_norm=-1.0),
    "record_every": lambda m, b: fenland.SAM(b, record_every=0),
    "ball": lambda m, b: fenland.SharpnessAware(b, ball=2),
    "model": lambda m, b: fenland.SAM(b, model=b),
    "names": lambda m, b: fenland.ASAM(b, include_bias=False),
    "needs g": lambda m, b: fenland.SharpnessAware(
        b, method=fenland.Renormalize(fenland.MSAM(sgd(net())).rules.method)
    ),
    "unknown option": lambda m, b: fenland.SAM(b, rhoo=0.1),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_constructor_leaves_the_base_untouched(why):
    model = net()
    base = sgd(model)
    loss_of(model).backward()
    base.step()
    hooks = {m: len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()}
    groups, attributes = [dict(g) for g in base.param_groups], dict(vars(base))
    with pytest.raises((TypeError, ValueError, AttributeError)):
        REFUSED[why](model, base)
    if why == "last group":
        assert "rho" not in base.param_groups[0]
    else:
        assert [dict(g) for g in base.param_groups] == groups
    assert vars(base).keys() == attributes.keys()
    assert {m: len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()} == hooks
    base.zero_grad()
    opt = fenland.SAM(base, rho=0.1, model=model) if why != "last group" else None
    if opt is not None:
        FORMS["closure"](opt, lambda: loss_of(model))


def test_a_refused_group_leaves_the_groups_untouched():
    model, opt = three()
    more = nn.Parameter(torch.ones(2, dtype=torch.float64))
    before = [dict(g) for g in opt.param_groups]
    for bad in (-1.0, float("nan"), "x", lambda t: -1.0):
        with pytest.raises((TypeError, ValueError), match="rho"):
            opt.add_param_group({"params": [more], "rho": bad})
        assert [dict(g) for g in opt.param_groups] == before
    assert radii_seen(model, opt) == expected("abc", 0)


@pytest.mark.parametrize("preset", ["SAM", "VaSSO", "LookSAM"])
def test_training_goes_on_without_the_group_that_left(preset):
    """Bit for bit as an optimizer that never had it, the gradients of the others being the same."""
    results = []
    for had in (False, True):
        model = net()
        tail = [p for n, p in model.named_parameters() if n.startswith("head")]
        rest = [p for n, p in model.named_parameters() if not n.startswith("head")]
        base = torch.optim.SGD([{"params": tail}] * had + [{"params": rest}], lr=0.1, momentum=0.9)
        opt = build(preset, base, rho=rho_a, model=model)
        if had:
            opt.param_groups.pop(0)
        torch.manual_seed(3)
        for t in range(3):
            FORMS["closure"](opt, lambda t=t, m=model: loss_of(m, t))
            model.zero_grad()
        results.append(dict(model.state_dict()))
    assert_same(*results)


def test_ssam_is_not_confused_by_an_emptied_group():
    model = net()
    opt = ssam(model, sgd([{"params": list(model.body.parameters())}, {"params": list(model.head.parameters())}]))
    opt.param_groups[1]["params"] = []
    FORMS["closure"](opt, lambda: loss_of(model))
    assert float(opt.last.radius) == pytest.approx(0.2)
