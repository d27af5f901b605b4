"""`del opt` frees weights and state at once, as it does for a plain optimizer: nothing waits for the collector."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import fenland
from peer_loops import FORMS, WHOLE_LOSS, build, loss_of, net, sgd

POINT = 16


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    sgd(net()).step()  # the first optimizer of a process loads parts of torch, which hold its frames for a while
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watched(opt: Any, model: Any) -> dict[str, weakref.ref]:
    base = getattr(opt, "base", opt)
    p = next(model.parameters())
    state = base.state.get(p, {})
    found = {
        "optimizer": weakref.ref(opt),
        "base": weakref.ref(base),
        "model": weakref.ref(model),
        "weight": weakref.ref(p),
    }
    if "momentum_buffer" in state:
        found["momentum"] = weakref.ref(state["momentum_buffer"])
    return found


def steps(opt: Any, model: Any, n: int, form: str = "closure") -> None:
    for t in range(n):
        FORMS[form](opt, lambda t=t: loss_of(model, t))


def alive(refs: dict[str, weakref.ref]) -> list[str]:
    return [name for name, ref in refs.items() if ref() is not None]


@pytest.mark.parametrize("steps", [0, 2])
def test_the_plain_base_does_so(steps):
    """What is asked of fenland holds for torch.optim.SGD."""
    model = net()
    opt = sgd(model)
    for _ in range(steps):
        opt.zero_grad()
        loss_of(model).backward()
        opt.step()
    refs = watched(opt, model)
    del opt, model
    assert alive(refs) == []


@pytest.mark.parametrize("preset", WHOLE_LOSS)
@pytest.mark.parametrize("guarded", [True, False])
def test_every_preset_after_steps(preset, guarded):
    model = net(dropout=0.0)
    if not guarded and preset != "SAMON":  # which moves norm layers alone
        model.body[1] = torch.nn.Identity()
    options = {"model": model} if guarded or preset == "SAMON" else {}
    opt = build(preset, sgd(model.named_parameters()), rho=0.1, **options)
    steps(opt, model, 3)
    refs = watched(opt, model)
    del opt, model, options
    assert alive(refs) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("also", ["nothing", "step", "restore", "an exception", "a scheduler", "hooks", "a checkpoint"])
def test_whatever_was_done_with_it(form, also):
    model = net()
    opt = fenland.VaSSO(sgd(model), rho=0.1, model=model)
    extra: list[Any] = []
    if also == "a scheduler":
        extra.append(torch.optim.lr_scheduler.StepLR(opt, 1))
    if also == "hooks":
        opt.register_step_pre_hook(lambda *a: None)
        opt.register_step_post_hook(lambda *a: None)
    if also != "nothing":
        steps(opt, model, 1, form)
    if also == "restore":
        loss_of(model).backward()
        opt.ascend()
        opt.restore()
    if also == "an exception":
        fail(opt)
    if also == "a checkpoint":
        opt.load_state_dict(opt.state_dict())
    if extra:
        extra[0].step()
    refs = watched(opt, model)
    if also == "a scheduler":  # torch's schedulers are cycles of their own
        del extra, opt, model
        gc.collect()
    else:
        del opt, model
    assert alive(refs) == []


def fail(opt: Any) -> None:
    def closure() -> torch.Tensor:
        raise KeyError("data")

    with contextlib.suppress(KeyError):
        opt.step(closure)


def test_in_the_middle_of_an_ascent():
    """An optimizer that is let go of at w + e takes g with it."""
    model = net()
    opt = fenland.GSAM(sgd(model), rho=0.1, model=model)
    loss_of(model).backward()
    g = weakref.ref(next(model.parameters()).grad)
    opt.ascend()
    refs = {**watched(opt, model), "g": g}
    del opt, model, g
    assert alive(refs) == []


def test_two_optimizers_over_one_model():
    model = net()
    opts = [fenland.SAM(sgd(list(m.parameters())), rho=0.1, model=model) for m in (model.body, model.head)]
    steps(opts[0], model, 1)
    steps(opts[1], model, 1)
    refs = {**{f"first {k}": r for k, r in watched(opts[0], model).items()}, **watched(opts[1], model)}
    del opts, model
    assert alive(refs) == []


def test_the_model_outlives_its_optimizer_unhooked():
    """No hook of a dead optimizer stays in the model's way."""
    model = net()
    opt = fenland.SAM(sgd(model), rho=0.1, model=model)
    steps(opt, model, 1)
    ref = weakref.ref(opt)
    del opt
    assert ref() is None
    model(torch.randn(4, 6, dtype=torch.float64))
    left = [h for m in model.modules() for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    assert not left
