"""A loss scale in the two-call form: both halves know the scaler, or the step is refused, now and the next time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from peer_loops import TWO_CALLS, assert_same, build, closure_for, loss_of, net, sgd, ssam

POINT = 6
SCALE = 2.0**12


def scaler() -> Any:
    return torch.amp.GradScaler("cpu", init_scale=SCALE)


def scaled(model: nn.Module, s: Any, t: int = 0) -> None:
    s.scale(loss_of(model, t)).backward()


def begin(preset: str = "SSAM", **options: Any) -> tuple[nn.Module, Any, Any]:
    model = net(torch.float32)
    return model, build(preset, sgd(model, **options), rho=0.1, model=model), scaler()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(dict(model.state_dict()))


@pytest.mark.parametrize("preset", TWO_CALLS)
def test_both_halves_with_the_scaler_equal_the_unscaled_loop(preset):
    results = []
    for with_scaler in (False, True):
        model, opt, s = begin(preset)
        torch.manual_seed(4)
        for t in range(3):
            opt.zero_grad()
            for half in (opt.ascend, opt.descend):
                if with_scaler:
                    scaled(model, s, t)
                    half(scaler=s)
                else:
                    loss_of(model, t).backward()
                    half()
            if with_scaler:
                s.update()
        results.append(state(model))
        assert not with_scaler or s.get_scale() == SCALE
    assert_same(results[1], results[0], 1e-5)


@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "LookSAM"])
@pytest.mark.parametrize("where", ["the first half", "the second half", "another scaler"])
def test_a_scaler_in_one_half_only_is_refused(preset, where):
    """The message names both calls; the weights are w, and a right step follows."""
    model, opt, s = begin(preset)
    before = {k: v.clone() for k, v in model.named_parameters()}
    first, second = {
        "the first half": ({"scaler": s}, {}),
        "the second half": ({}, {"scaler": s}),
        "another scaler": ({"scaler": s}, {"scaler": scaler()}),
    }[where]
    scaled(model, s)
    opt.ascend(**first)
    scaled(model, s)
    with pytest.raises(RuntimeError, match=r"ascend\(scaler=.*descend\(scaler="):
        opt.descend(**second)
    opt.restore()
    assert_same({k: v.clone() for k, v in model.named_parameters()}, before)
    scaled(model, s)
    opt.ascend(scaler=s)
    scaled(model, s)
    opt.descend(scaler=s)
    s.update()


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_a_scaler_that_no_step_was_told_of_stops_at_its_update(form):
    """Nobody can see a loss scale in a gradient; torch's own update() refuses, since no gradient was unscaled."""
    model, opt, s = begin("SAM")

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = loss_of(model)
        s.scale(loss).backward()
        return loss

    if form == "closure":
        opt.step(closure)
    else:
        for half in (opt.ascend, opt.descend):
            scaled(model, s)
            half()
    with pytest.raises(AssertionError, match="No inf checks"):
        s.update()


@pytest.mark.parametrize("moment", ["before ascend", "at w + e"])
@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_refused_scaler_step_is_refused_in_the_same_words_every_time(moment, unscaled, fused):
    model, opt, s = begin(fused=fused)
    before = {k: v.clone() for k, v in model.named_parameters()}
    scaled(model, s)
    if moment == "at w + e":
        opt.ascend(scaler=s)
        scaled(model, s)
    if unscaled:
        s.unscale_(opt)
    said = []
    for _ in range(3):
        with pytest.raises(RuntimeError) as caught:
            s.step(opt)
        said.append(str(caught.value))
    assert len(set(said)) == 1, said
    assert "scaler=scaler" in said[0]
    if moment == "at w + e":
        opt.restore()
    assert_same({k: v.clone() for k, v in model.named_parameters()}, before)
    assert not {"grad_scale", "found_inf"} & set(vars(opt)), "nothing of the refused call stays on the optimizer"


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_after_a_refused_scaler_step_the_right_one_works(form):
    model, opt, s = begin()
    want, reference, other = begin()
    torch.manual_seed(4)
    rng = torch.get_rng_state()
    buffers = state(model)
    scaled(model, s)
    with pytest.raises(RuntimeError, match="scaler=scaler"):
        s.step(opt)
    model.load_state_dict(buffers)
    s = scaler()
    for m, o, sc in ((model, opt, s), (want, reference, other)):
        torch.set_rng_state(rng)
        o.zero_grad()
        if form == "closure":

            def closure(m: nn.Module = m, o: Any = o, sc: Any = sc) -> torch.Tensor:
                o.zero_grad()
                loss = loss_of(m)
                sc.scale(loss).backward()
                return loss

            o.step(closure, scaler=sc)
        else:
            for half in (o.ascend, o.descend):
                scaled(m, sc)
                half(scaler=sc)
        sc.update()
    assert_same(state(model), state(want))


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_a_disabled_scaler_is_none(form):
    results = []
    for s in (None, torch.amp.GradScaler("cpu", enabled=False)):
        model = net(torch.float32)
        opt = ssam(model)
        torch.manual_seed(4)
        if form == "closure":
            opt.step(closure_for(opt, lambda m=model: loss_of(m)), scaler=s)
        else:
            loss_of(model).backward()
            opt.ascend(scaler=s)
            loss_of(model).backward()
            opt.descend()
        results.append(state(model))
    assert_same(*results)


def test_an_overflow_in_the_first_half_skips_and_backs_off_once():
    for bad in (0, 1):
        model, opt, s = begin()
        before = state(model)
        torch.manual_seed(4)
        rng = torch.get_rng_state()
        for k, half in enumerate((opt.ascend, opt.descend)):
            loss = loss_of(model) * (float("inf") if k == bad else 1.0)
            s.scale(loss).backward()
            half(scaler=s)
        s.update()
        assert s.get_scale() == SCALE / 2
        assert_same(state(model), before)
        assert torch.equal(torch.get_rng_state(), rng)
