"""A checkpoint that cannot be right is refused when it is loaded, not at some later step."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from peer_loops import TWO_CALLS, build, closure_for, fenland_state, loss_of, net, sgd

POINT = 14
BAD = (TypeError, ValueError)


def trained(preset: str = "VaSSO") -> tuple[nn.Module, Any]:
    model = net()
    opt = build(preset, sgd(model), rho=0.1, model=model)
    torch.manual_seed(5)
    for t in range(2):
        opt.step(closure_for(opt, lambda t=t: loss_of(model, t)))
    return model, opt


def empty(state: dict[str, Any]) -> dict[str, Any]:
    return {}


def nothing(state: dict[str, Any]) -> Any:
    return None


def no_groups(state: dict[str, Any]) -> dict[str, Any]:
    return {"state": state["state"]}


def no_state(state: dict[str, Any]) -> dict[str, Any]:
    return {"param_groups": state["param_groups"]}


def fewer_groups(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "param_groups": []}


def fewer_parameters(state: dict[str, Any]) -> dict[str, Any]:
    state["param_groups"][0]["params"] = state["param_groups"][0]["params"][:-1]
    return state


def rho_nan(state: dict[str, Any]) -> dict[str, Any]:
    state["param_groups"][0]["rho"] = float("nan")
    return state


def rho_negative(state: dict[str, Any]) -> dict[str, Any]:
    state["param_groups"][0]["rho"] = -0.1
    return state


def rho_words(state: dict[str, Any]) -> dict[str, Any]:
    state["param_groups"][0]["rho"] = "0.1"
    return state


def count_words(state: dict[str, Any]) -> dict[str, Any]:
    (name,) = [n for n in state["param_groups"][0] if "count" in str(n)]
    state["param_groups"][0][name] = "two"
    return state


def kept(state: dict[str, Any]) -> tuple[dict[str, Any], str]:
    for values in state["state"].values():
        for name, x in values.items():
            if "fenland" in str(name) and isinstance(x, torch.Tensor) and x.numel() > 1:
                return values, name
    raise AssertionError("no kept vector")


def kept_shape(state: dict[str, Any]) -> dict[str, Any]:
    values, name = kept(state)
    values[name] = torch.zeros(5, 5, dtype=torch.float64)
    return state


def kept_number(state: dict[str, Any]) -> dict[str, Any]:
    values, name = kept(state)
    values[name] = 3.0
    return state


def kept_nan(state: dict[str, Any]) -> dict[str, Any]:
    values, name = kept(state)
    values[name][0] = float("nan")
    return state


def kept_infinite(state: dict[str, Any]) -> dict[str, Any]:
    values, name = kept(state)
    values[name].view(-1)[-1] = float("-inf")
    return state


BROKEN = {
    f.__name__: f
    for f in (
        empty,
        nothing,
        no_groups,
        no_state,
        fewer_groups,
        fewer_parameters,
        rho_nan,
        rho_negative,
        rho_words,
        count_words,
        kept_shape,
        kept_number,
        kept_nan,
        kept_infinite,
    )
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("preset", ["VaSSO", "LookSAM"])
def test_a_broken_checkpoint_is_refused_when_it_is_loaded(broken, preset):
    """One line that names what is wrong; the optimizer is as before, and steps."""
    model, opt = trained(preset)
    state = BROKEN[broken](copy.deepcopy(opt.state_dict()))
    before, groups = fenland_state(opt), [dict(g) for g in opt.param_groups]
    momentum = {p: opt.state[p]["momentum_buffer"].clone() for p in model.parameters()}
    with pytest.raises(BAD) as caught:
        opt.load_state_dict(state)
    assert "\n" not in str(caught.value)
    words = {
        "rho": "rho",
        "kept": "shape|tensor|Tensor|infinite or NaN",
        "count": "count",
        "empty": "state|param_groups",
    }
    wanted = words.get(broken.split("_")[0])
    assert wanted is None or any(word in str(caught.value) for word in wanted.split("|")), caught.value
    assert [dict(g) for g in opt.param_groups] == groups
    for p, m in momentum.items():
        assert torch.equal(opt.state[p]["momentum_buffer"], m)
    assert str(fenland_state(opt)) == str(before)
    opt.step(closure_for(opt, lambda: loss_of(model)))


def test_a_checkpoint_of_another_method_loads_or_is_refused_but_never_fails_at_the_step():
    for saved in ("SAM", "VaSSO", "LookSAM", "FriendlySAM", "AESAM"):
        state = copy.deepcopy(trained(saved)[1].state_dict())
        for into in ("SAM", "VaSSO", "LookSAM", "FriendlySAM", "AESAM"):
            model, opt = trained(into)
            try:
                opt.load_state_dict(copy.deepcopy(state))
            except ValueError as error:
                assert "fenland" in str(error) or into in str(error)  # noqa: PT017
            for t in range(2):
                opt.step(closure_for(opt, lambda t=t, m=model: loss_of(m, t)))


@pytest.mark.parametrize("named", ["by the model", "by the groups", "not at all"])
def test_the_message_names_the_parameter_of_a_kept_vector_that_is_not_finite(named):
    """And the cure that it gives is one: without these entries the method begins anew."""
    model = net()
    base = torch.optim.SGD(model.named_parameters() if named == "by the groups" else model.parameters(), lr=0.1)
    opt = build("VaSSO", base, rho=0.1, model=model if named == "by the model" else None, replay_rng=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what nobody guards without model=
        opt.step(closure_for(opt, lambda: loss_of(model)))
    state = copy.deepcopy(opt.state_dict())
    name, _ = list(model.named_parameters())[2]
    (entry,) = [k for k in state["state"][2] if "fenland" in str(k)]
    state["state"][2][entry].view(-1)[:2] = float("nan")
    where = re.escape(f"parameter 2 (shape {tuple(model.get_parameter(name).shape)})")
    where = where if named == "not at all" else re.escape(repr(name))
    with pytest.raises(ValueError, match=rf"{entry} of {where} .* 2 numbers .*infinite or NaN.*begins them anew"):
        opt.load_state_dict(state)
    for values in state["state"].values():
        values.pop(entry)
    opt.load_state_dict(state)
    opt.step(closure_for(opt, lambda: loss_of(model)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "two", None])
def test_a_kept_number_that_is_none(value):
    model = net()
    opt = build("AESAM", sgd(model), rho=0.1, model=model)
    opt.step(closure_for(opt, lambda: loss_of(model)))
    state = copy.deepcopy(opt.state_dict())
    name = next(n for n in state["param_groups"][0] if "fenland" in str(n) and "count" not in n)
    before = fenland_state(opt)
    state["param_groups"][0][name] = value
    with pytest.raises(ValueError, match=f"{name} in the state_dict is .*finite number"):
        opt.load_state_dict(state)
    assert str(fenland_state(opt)) == str(before)


def test_what_a_base_keeps_of_its_own_is_its_own():
    """A base may keep an infinity, of the best loss so far for instance."""
    model = net()

    class Best(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            for p in model.parameters():
                self.state[p]["best"] = torch.full_like(p, float("inf"))

    opt = build("VaSSO", Best(model.parameters(), lr=0.1, momentum=0.9), rho=0.1, model=model)
    opt.step(closure_for(opt, lambda: loss_of(model)))
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert all(bool(opt.state[p]["best"].isinf().all()) for p in model.parameters())


@pytest.mark.parametrize("preset", TWO_CALLS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("when", [0, 1])
def test_a_step_that_falls_back_on_g_keeps_nothing_that_is_not_finite(preset, bad, when):
    """nonfinite="base_step" steps with g where h is infinite: what the method keeps of h is forgotten."""
    model = net()
    try:
        opt = build(preset, sgd(model), rho=0.1, model=model, nonfinite="base_step")
    except ValueError:
        return  # it has no g to fall back on, or needs other parameters
    for t in range(3):
        passes = []

        def loss(t: int = t, passes: list[int] = passes) -> torch.Tensor:
            passes.append(0)
            return loss_of(model, t) * (bad if t == when and len(passes) == 2 else 1.0)

        opt.step(closure_for(opt, loss))
        state = fenland_state(opt)
        assert all(torch.as_tensor(x).isfinite().all() for x in state.values() if not isinstance(x, list)), state
    assert all(p.isfinite().all() for p in model.parameters())
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
