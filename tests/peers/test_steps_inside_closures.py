"""What a closure must not do, and what a second pass must not lack: other optimizers' steps, and a backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland
from peer_loops import FORMS, assert_same, by_closure, everything, loss_of, net, sgd, ssam

POINT = 4


def stepping(other: Any, opt: Any, model: nn.Module) -> Any:
    def closure() -> Tensor:
        opt.zero_grad()
        other.zero_grad()
        loss = loss_of(model)
        loss.backward()
        other.step()
        return loss

    return closure


@pytest.mark.parametrize("preset", ["SAM", "LookSAM", "GSAM"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_plain_optimizer_of_the_same_parameters_is_refused(preset, guarded):
    """The base's own step left in the closure: the weights moved at w, at w + e, and once more."""
    model = net()
    base = sgd(model)
    opt = getattr(fenland, preset)(base, rho=0.2, model=model if guarded else None)
    before = everything(model)
    with pytest.raises(RuntimeError, match=r"SGD\.step\(\) inside the closure .* update twice"):
        opt.step(stepping(base, opt, model))
    assert_same(everything(model), {**before, **(dict(model.named_buffers()) if not guarded else {})})


def test_a_plain_optimizer_of_another_part_of_the_model_is_refused():
    """Muon for the matrices by fenland, AdamW for the rest by its old line in the closure: it stepped twice."""
    model = net()
    opt, rest = ssam(model, sgd(model.body)), torch.optim.AdamW(model.head.parameters())
    before = everything(model)
    with pytest.raises(RuntimeError, match="step_together"):
        opt.step(stepping(rest, opt, model))
    assert_same(everything(model), before)


def test_an_optimizer_of_another_network_is_nobody_s_business():
    model, other = net(), nn.Linear(2, 2)
    opt, theirs = ssam(model), torch.optim.SGD(other.parameters(), lr=0.1)
    other(torch.ones(1, 2)).sum().backward()

    def closure() -> Tensor:
        theirs.step()
        opt.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last.loss_ascent is not None


@pytest.mark.parametrize("fails", [True, False])
def test_after_the_step_every_optimizer_steps_as_before(fails):
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    model = net()
    base = sgd(model)
    opt = ssam(model, base)
    if fails:
        with pytest.raises(RuntimeError):
            opt.step(stepping(base, opt, model))
    else:
        by_closure(opt, lambda: loss_of(model))
    assert not _global_optimizer_pre_hooks
    loss_of(model).backward()
    base.step()


# The second pass

NOTHING = "at w \\+ e no parameter of the optimizer has a gradient, so this step does nothing"


@pytest.mark.parametrize("form", ["two calls", "block", "closure"])
def test_no_gradient_at_the_ascent_point_is_one_warning(form):
    """The second backward is forgotten, or reaches no weight: nothing ever trains, and nothing said so."""
    model = net()
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.2, model=model)
    passes: list[int] = []

    def loss() -> Tensor:
        passes.append(1)
        value = loss_of(model)
        return value if len(passes) % 2 else value.detach().requires_grad_()  # backward reaches no weight

    def train() -> None:
        for _ in range(3):
            opt.zero_grad()
            FORMS[form](opt, loss)

    with pytest.warns(UserWarning, match=NOTHING) as told:
        train()
    assert len(told) == 1


def test_a_gradient_zeroed_before_descend_is_the_same_warning():
    model = net()
    opt = ssam(model)
    loss_of(model).backward()
    opt.ascend()
    loss_of(model).backward()
    opt.zero_grad()
    with pytest.warns(UserWarning, match=NOTHING):
        opt.descend()
