"""A loss scale in the two-call form: both halves know the scaler, or the step is refused, now and the next time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from peer_loops import TWO_CALLS, WHOLE_LOSS, assert_same, build, closure_for, everything, loss_of, net, sgd, ssam

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


@pytest.mark.parametrize("preset", WHOLE_LOSS)
def test_a_closure_with_the_scaler_equals_the_unscaled_loop(preset):
    results = []
    for with_scaler in (False, True):
        model, opt, s = begin(preset)
        torch.manual_seed(4)
        for t in range(3):

            def closure(t: int = t, model: Any = model, opt: Any = opt, s: Any = s, on: bool = with_scaler) -> Any:
                opt.zero_grad()
                loss = loss_of(model, t)
                (s.scale(loss) if on else loss).backward()
                return loss

            opt.step(closure, scaler=s if with_scaler else None)
            if with_scaler:
                s.update()
        results.append(state(model))
        assert not with_scaler or s.get_scale() == SCALE
    assert_same(results[1], results[0], 1e-5)


CURES = {
    "closure": r"opt\.step\(closure, scaler=scaler\)",
    "two calls": r"ascend\(scaler=scaler\) and descend\(scaler=scaler\)",
    "block": r"ascend\(scaler=scaler\) and descend\(scaler=scaler\)",
    "together": r"opt\.step\(closure, scaler=scaler\)",
}
Loss = Callable[[], torch.Tensor]


def a_step(form: str, model: nn.Module, opt: Any, loss: Loss, backward: Callable[[torch.Tensor], Any]) -> None:
    """One step whose loss is handed to `backward`, in a form that is told of no scaler."""

    def both() -> torch.Tensor:
        model.zero_grad()
        value = loss()
        backward(value)
        return value

    if form == "closure":
        opt.step(both)
    elif form == "together":
        fenland.step_together(opt, both)
    elif form == "block":
        both()
        with opt.ascent():
            both()
    else:
        both()
        opt.ascend()
        both()
        opt.descend()


def of_form(form: str, preset: str = "SSAM") -> tuple[nn.Module, Any, Any]:
    if form != "together":
        return begin(preset)
    model = net(torch.float32)
    parts = [build(preset, sgd(part), rho=0.1, model=model) for part in (model.body, model.head)]
    return model, parts, scaler()


@pytest.mark.parametrize("form", CURES)
@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM", "RandomSAM"])
@pytest.mark.parametrize("divided", [False, True], ids=["", "a mean of micro-batches"])
def test_a_scaler_that_no_step_was_told_of_is_refused_before_anything_moves(form, preset, divided):
    """Every time, with the line of the cure; all is as before, and the right step follows."""
    model, opt, s = of_form(form, preset)
    torch.manual_seed(4)
    for _ in range(2):
        before = everything(model)
        with pytest.raises(RuntimeError, match=rf"by 4096\) that this step was not told of.*{CURES[form]}"):
            a_step(form, model, opt, lambda: loss_of(model) / (2 if divided else 1), lambda x: s.scale(x).backward())
        if form in ("closure", "together"):
            assert_same(everything(model), before)
        assert_same(
            dict(model.named_parameters()), {k: v for k, v in before.items() if k in dict(model.named_parameters())}
        )
    for one in opt if isinstance(opt, list) else [opt]:
        assert not one.state, "the base was not stepped"
        assert not one.last.skipped
    if form == "two calls":
        scaled(model, s)
        opt.ascend(scaler=s)
        scaled(model, s)
        opt.descend(scaler=s)
        s.update()
        assert s.get_scale() == SCALE


@pytest.mark.parametrize("form", CURES)
@pytest.mark.parametrize("after", ["right steps of another optimizer", "a checkpoint", "nothing"])
def test_whatever_the_scaler_has_done_before(form, after):
    model, opt, s = of_form(form)
    if after == "right steps of another optimizer":
        other = sgd(nn.Linear(2, 2))
        for _ in range(3):
            s.scale(other.param_groups[0]["params"][0].sum()).backward()
            s.step(other)
            s.update()
    elif after == "a checkpoint":
        s.load_state_dict(scaler().state_dict())
    with pytest.raises(RuntimeError, match="not told of"):
        a_step(form, model, opt, lambda: loss_of(model), lambda x: s.scale(x).backward())


@pytest.mark.parametrize("form", CURES)
@pytest.mark.parametrize(
    "loss",
    ["another scale", "no product", "a weight of the user's", "a tensor as weight", "a disabled scaler", "scale 1"],
)
def test_no_false_alarm_beside_a_scaler_that_is_alive_and_has_scaled(form, loss):
    """A product with a constant is a scaled loss only if it is the very one that the scaler makes."""
    results = []
    for beside in (False, True):
        model, opt, s = of_form(form)
        if loss == "scale 1":
            s = torch.amp.GradScaler("cpu", init_scale=1.0)
        off = torch.amp.GradScaler("cpu", enabled=False)
        if beside:
            s.scale(torch.ones((), requires_grad=True)).backward()
        backward = {
            "another scale": lambda x: (x * (SCALE / 2)).backward(),
            "no product": lambda x: x.backward(),
            "a weight of the user's": lambda x: (x * 0.5).backward(),
            "a tensor as weight": lambda x: (x * torch.tensor(0.25)).backward(),
            "a disabled scaler": lambda x, off=off: off.scale(x).backward(),
            "scale 1": lambda x: (x * 1.0).backward(),
        }[loss]
        torch.manual_seed(4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for t in range(2):
                a_step(form, model, opt, lambda model=model, t=t: loss_of(model, t), backward)
        results.append(everything(model))
        del s
    assert_same(*results)


def test_the_search_happens_once_and_leaves_nothing_behind(monkeypatch):
    """No hook outlives the step, and later steps look at nothing."""
    model, opt, s = begin()
    s.scale(torch.ones((), requires_grad=True)).backward()
    asked: list[int] = []
    monkeypatch.setattr("fenland.step.refusals.loss_scale._roots", lambda thread: asked.append(thread) or [])
    for t in range(3):
        a_step("two calls", model, opt, lambda t=t: loss_of(model, t), lambda x: (x * 0.5).backward())
        assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert len(asked) == 1
    model, opt, s = begin()
    loss_of(model).backward()
    opt.ascend()
    opt.restore()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_a_loss_that_nobody_keeps_is_not_proven_and_stops_at_update(form):
    """scaler.scale(f(x)).backward(): no tensor is left to compare with, and torch refuses one step later."""
    model, opt, s = begin("SAM")
    if form == "closure":

        def closure() -> None:
            opt.zero_grad()
            scaled(model, s)

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
    assert "scaler.step(opt) steps with one gradient, and a sharpness-aware step needs two" in said[0]
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
