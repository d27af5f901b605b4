"""Habits of training loops that public reports about wrapped optimizers name, each against the same loop by hand.

The truth is one SAM step around a bare base, written out below; nothing of fenland is in it.
"""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland
from peer_loops import FORMS, assert_same, by_closure, loss_of, net, sgd

POINT = 6
STEPS = 4
RHO = 0.1

Change = Callable[[nn.Module, Any, int], None]


def by_hand(model: nn.Module, base: torch.optim.Optimizer, t: int) -> None:
    """One SAM step of the bare base; buffers and torch's generator as after one forward at w."""

    def buffers() -> dict[str, Tensor]:
        return {name: x.clone() for name, x in model.named_buffers()}

    def put(state: dict[str, Tensor], rng: Tensor) -> None:
        for name, x in model.named_buffers():
            x.copy_(state[name])
        torch.set_rng_state(rng)

    start = buffers(), torch.get_rng_state()
    base.zero_grad()
    loss_of(model, t).backward()
    end = buffers(), torch.get_rng_state()
    moved = [p for group in base.param_groups for p in group["params"] if p.grad is not None]
    home, g = [p.detach().clone() for p in moved], [p.grad.clone() for p in moved]
    norm = torch.cat([x.flatten() for x in g]).norm()
    with torch.no_grad():
        for p, x in zip(moved, g, strict=True):
            p.add_(RHO * x / norm)
        put(*start)
    base.zero_grad()
    loss_of(model, t).backward()
    with torch.no_grad():
        for p, x in zip(moved, home, strict=True):
            p.copy_(x)
        put(*end)
    base.step()


def freeze_and_unfreeze(model: nn.Module, opt: Any, t: int) -> None:
    """A backbone that is frozen for a while."""
    model.body[0].requires_grad_(t >= 2)


def hooks_clip_by_value(model: nn.Module, opt: Any, t: int) -> None:
    if t == 0:
        for p in model.parameters():
            p.register_hook(lambda g: g.clamp(-0.02, 0.02))


def hooks_clip_what_has_accumulated(model: nn.Module, opt: Any, t: int) -> None:
    def clip(p: Tensor) -> None:
        p.grad.clamp_(-0.02, 0.02)

    if t == 0:
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(clip)


def anomaly_detection(model: nn.Module, opt: Any, t: int) -> None:
    if t == 0:
        inner = model.forward

        def forward(x: Tensor) -> Tensor:
            with torch.autograd.set_detect_anomaly(True):
                return inner(x)

        model.forward = forward  # type: ignore[method-assign]


def zeros_in_place(model: nn.Module, opt: Any, t: int) -> None:
    opt.zero_grad(set_to_none=False)


def lower_precision(model: nn.Module, opt: Any, t: int) -> None:
    """`module.to(dtype)` after the optimizer was built; the state follows, as people do it by hand."""
    if t == 2:
        model.float()
        for state in opt.state.values():
            state.update({k: x.float() for k, x in state.items() if isinstance(x, Tensor) and x.dim()})


def offload_the_state(model: nn.Module, opt: Any, t: int) -> None:
    """The state leaves and comes back in new tensors between two steps."""
    for state in opt.state.values():
        state.update({k: x.clone() for k, x in state.items() if isinstance(x, Tensor)})


HABITS: dict[str, Change] = {
    f.__name__: f
    for f in (
        freeze_and_unfreeze,
        hooks_clip_by_value,
        hooks_clip_what_has_accumulated,
        anomaly_detection,
        zeros_in_place,
        lower_precision,
        offload_the_state,
    )
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("habit", HABITS)
def test_between_steps(habit, form):
    model, want = net(), net()
    opt, base = fenland.SAM(sgd(model), rho=RHO, model=model), sgd(want)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Anomaly Detection")
        torch.manual_seed(3)
        for t in range(STEPS):
            HABITS[habit](model, opt, t)
            if habit != "zeros_in_place":
                opt.zero_grad()
            FORMS[form](opt, lambda t=t: loss_of(model, t))
        torch.manual_seed(3)
        for t in range(STEPS):
            HABITS[habit](want, base, t)
            by_hand(want, base, t)
    tolerance = 1e-6 if habit == "lower_precision" else 1e-12
    assert_same(dict(model.state_dict()), dict(want.state_dict()), tolerance)


FLAGS: dict[str, dict[str, Any]] = {
    "lr=tensor": {"lr": torch.tensor(0.01)},
    "foreach=False": {"lr": 0.01, "foreach": False},
    "foreach=True": {"lr": 0.01, "foreach": True},
    "fused": {"lr": 0.01, "fused": True},
    "amsgrad": {"lr": 0.01, "amsgrad": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_adamw(flags, form):
    """The bias before BatchNorm has no gradient but rounding, which Adam divides by itself: it is left out."""
    model, want = net(), net()
    opt = fenland.SAM(torch.optim.AdamW(model.parameters(), **FLAGS[flags]), rho=RHO, model=model)
    base = torch.optim.AdamW(want.parameters(), **FLAGS[flags])
    torch.manual_seed(3)
    for t in range(STEPS):
        opt.zero_grad()
        FORMS[form](opt, lambda t=t: loss_of(model, t))
    torch.manual_seed(3)
    for t in range(STEPS):
        by_hand(want, base, t)
    for state in (got := model.state_dict(), hoped := want.state_dict()):
        del state["body.0.bias"]
        del state["body.1.running_mean"]  # which follows that bias
    assert_same(dict(got), dict(hoped), 1e-10)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy of both": copy.deepcopy,
    "pickle of both": lambda pair: pickle.loads(pickle.dumps(pair)),
    "deepcopy of the optimizer": lambda pair: (lambda opt: (opt.model, opt))(copy.deepcopy(pair[1])),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_in_the_middle_goes_on(how, form):
    model, want = net(), net()
    opt, base = fenland.SAM(sgd(model), rho=RHO, model=model), sgd(want)
    torch.manual_seed(3)
    for t in range(STEPS):
        if t == 2:
            left = model
            model, opt = COPIES[how]((model, opt))
            kept = copy.deepcopy(left.state_dict())
        opt.zero_grad()
        FORMS[form](opt, lambda t=t, model=model: loss_of(model, t))
    torch.manual_seed(3)
    for t in range(STEPS):
        by_hand(want, base, t)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert_same(dict(left.state_dict()), kept)


@pytest.mark.parametrize("form", FORMS)
def test_a_scheduler_that_was_built_on_the_base_before(form):
    model, want = net(), net()
    inner, base = sgd(model), sgd(want)
    schedulers = [torch.optim.lr_scheduler.StepLR(x, 1, gamma=0.5) for x in (inner, base)]
    opt = fenland.SAM(inner, rho=RHO, model=model)
    torch.manual_seed(3)
    for t in range(STEPS):
        opt.zero_grad()
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        schedulers[0].step()
    torch.manual_seed(3)
    for t in range(STEPS):
        by_hand(want, base, t)
        schedulers[1].step()
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)


def test_torch_compile_of_the_bound_step():
    model, want = net(), net()
    opt, base = fenland.SAM(sgd(model), rho=RHO, model=model), sgd(want)
    step = torch.compile(opt.step, backend="eager")
    torch.manual_seed(3)
    for t in range(STEPS):

        def closure(t: int = t) -> Tensor:
            opt.zero_grad()
            loss = loss_of(model, t)
            loss.backward()
            return loss

        step(closure)
    torch.manual_seed(3)
    for t in range(STEPS):
        by_hand(want, base, t)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)


def test_threads_that_train_a_model_each():
    """A closure that runs in one thread is not mistaken for one that is nested in another's. Without dropout: torch's
    generator is everybody's."""
    models, want = [net(dropout=0.0) for _ in range(3)], net(dropout=0.0)
    failed: list[BaseException] = []

    def train(model: nn.Module) -> None:
        try:
            opt = fenland.SAM(sgd(model), rho=RHO, model=model)
            for t in range(20):
                by_closure(opt, lambda t=t: loss_of(model, t))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=train, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    base = sgd(want)
    for t in range(20):
        by_hand(want, base, t)
    for model in models:
        assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)


RETURNS: dict[str, tuple[Callable[[Tensor], Any], bool]] = {
    "None": (lambda loss: None, False),
    "a float": (lambda loss: loss.item(), True),
    "a tuple": (lambda loss: (loss, "logits"), True),
    "a mapping": (lambda loss: {"loss": loss}, True),
    "a string": (lambda loss: "done", False),
}


@pytest.mark.parametrize("returns", RETURNS)
def test_whatever_a_closure_returns(returns):
    """The step is the same; what is a loss is in the record, and what is none leaves it None."""
    made, is_loss = RETURNS[returns]
    model, want = net(), net()
    opt, base = fenland.SAM(sgd(model), rho=RHO, model=model), sgd(want)

    def closure() -> Any:
        opt.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return made(loss)

    torch.manual_seed(3)
    value = opt.step(closure)
    torch.manual_seed(3)
    by_hand(want, base, 0)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert (opt.last.sharpness is not None) == is_loss
    assert type(value) is type(made(torch.zeros(())))


def test_inference_mode_is_torch_s_own_error_and_changes_nothing():
    model = net()
    opt = fenland.SAM(sgd(model), rho=RHO, model=model)
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode(), pytest.raises(RuntimeError, match="does not require grad"):
        by_closure(opt, lambda: loss_of(model))
    assert_same(dict(model.state_dict()), dict(before))
