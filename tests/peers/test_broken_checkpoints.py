"""A checkpoint that cannot be right is refused when it is loaded, not at some later step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from peer_loops import build, closure_for, fenland_state, loss_of, net, sgd

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
    words = {"rho": "rho", "kept": "shape|tensor|Tensor", "count": "count", "empty": "state|param_groups"}
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
