"""An attribute that can be set has an effect, or setting it says what to do instead."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import fenland
from peer_loops import FORMS, assert_same, loss_of, net, sgd, ssam

POINT = 7
OPTIONS = [p for p in inspect.signature(fenland.SharpnessAware).parameters if p not in ("base", "rho")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("groups", [1, 2])
def test_setting_rho_sets_the_groups_or_is_refused(form, groups):
    model, want = net(), net()

    def make(m: Any, rho: float) -> Any:
        params = list(m.parameters())
        split = [{"params": params[k::groups]} for k in range(groups)]
        return fenland.SAM(sgd(split), rho=rho, model=m)

    opt, reference = make(model, 0.1), make(want, 0.2)
    try:
        opt.rho = 0.2
    except AttributeError as error:
        assert "param_groups" in str(error)  # noqa: PT017 - one of two right answers
        for group in opt.param_groups:
            group["rho"] = 0.2
    else:
        assert [group["rho"] for group in opt.param_groups] == [0.2] * groups
    torch.manual_seed(4)
    FORMS[form](opt, lambda: loss_of(model))
    torch.manual_seed(4)
    FORMS[form](reference, lambda: loss_of(want))
    assert_same(model, want)


@pytest.mark.parametrize("value", [-0.1, float("nan"), "0.1", None])
def test_a_bad_rho_is_refused_at_once(value):
    opt = ssam(net())
    with pytest.raises((AttributeError, TypeError, ValueError), match="rho"):
        opt.rho = value
    assert opt.param_groups[0]["rho"] == 0.2


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_chosen_at_construction_cannot_be_changed_in_silence(name):
    opt = ssam(net())
    before = getattr(opt, name, None)
    with pytest.raises(AttributeError, match=name):
        setattr(opt, name, object())
    assert getattr(opt, name, None) is before


@pytest.mark.parametrize("name", ["base_optimizer", "optimizer", "inner_optimizer"])
def test_other_libraries_names_for_the_base_name_ours(name):
    opt = ssam(net())
    assert not hasattr(opt, name)
    with pytest.raises(AttributeError, match=r"\bbase\b"):
        getattr(opt, name)


def test_a_misspelt_attribute_is_an_attribute_error_of_this_object():
    opt = ssam(net())
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = opt.no_such_thing


def test_an_attribute_of_one_s_own_stays_one_s_own():
    """Trainers hang things on optimizers: that is theirs."""
    opt = ssam(net())
    opt.my_note = [1]
    opt.initial_step = 3
    assert (opt.my_note, opt.initial_step) == ([1], 3)
    assert isinstance(opt, torch.optim.Optimizer)


class WithOptions(torch.optim.SGD):
    """A base with options of its own beside its groups, as Lookahead's `k` and `alpha`."""

    def __init__(self, params):
        super().__init__(params, lr=0.1)
        self.k, self.stepped_with = 5, []

    def step(self, closure=None):
        self.stepped_with.append(self.k)
        return super().step(closure)


@pytest.mark.parametrize("form", FORMS)
def test_setting_an_option_of_the_base_sets_the_base_s(form):
    """What is read from the base was set on the wrapper: `opt.k` then read 3 while the base went on with 5."""
    model = net()
    opt = ssam(model, WithOptions(model.parameters()))
    opt.k = 3
    assert opt.k == opt.base.k == 3
    FORMS[form](opt, lambda: loss_of(model))
    assert opt.stepped_with == [3]


def test_what_others_hang_on_an_optimizer_stays_on_it():
    """Schedulers and trainers mark the optimizer that they were given; the base's marks are its own."""
    model = net()
    opt = ssam(model)
    opt.base._marked = "base"
    opt._marked, opt.name = "ours", "sam"
    assert (opt.base._marked, opt._marked, opt.name) == ("base", "ours", "sam")
    assert not hasattr(opt.base, "name")
    opt.step = opt.step  # as LRScheduler patches it
    assert "step" not in vars(opt.base)
