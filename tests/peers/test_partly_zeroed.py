"""A closure that zeroes some gradients and adds to others: wherever the forgotten ones are, the step is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland
from peer_loops import assert_same, closure_for, everything, loss_of, net, sgd, ssam

POINT = 4
PARTS = ["body.0", "body.1", "head"]


def zeroing_all_but(model: nn.Module, part: str, form: str) -> Any:
    def closure() -> Tensor:
        for name, module in model.named_modules():
            if name and not part.startswith(name) and not name.startswith(part):
                module.zero_grad(set_to_none=form == "None")
        loss = loss_of(model)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("form", ["None", "zeros"])
@pytest.mark.parametrize("part", PARTS)
def test_one_forgotten_part_is_enough(part, form):
    """Only one parameter was watched: a closure that emptied that one went through, 6e-2 off in three steps."""
    model = net()
    opt = ssam(model)
    loss_of(model).backward()
    before = everything(model)
    with pytest.raises(RuntimeError, match="does not zero the gradients"):
        opt.step(zeroing_all_but(model, part, form))
    assert_same(everything(model), before)


@pytest.mark.parametrize("norm", ["joint", "each"])
@pytest.mark.parametrize("forgotten", PARTS)
def test_in_a_step_together_too(norm, forgotten):
    """A closure that empties the first optimizer alone adds to the second's old gradients."""
    model = net()
    rest = [p for name, p in model.named_parameters() if not name.startswith(forgotten)]
    first, second = ssam(model, sgd(rest)), ssam(model, sgd(model.get_submodule(forgotten)))
    loss_of(model).backward()

    with pytest.raises(RuntimeError, match="does not zero the gradients"):
        fenland.step_together([first, second], closure_for(first, lambda: loss_of(model)), norm=norm)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_what_the_closure_empties_and_no_loss_reaches_is_not_old(set_to_none):
    """A head that trains on some batches only: its gradient is zeroed by the closure and not written again."""
    model, extra = net(), nn.Linear(6, 1, dtype=torch.float64)
    opt = fenland.SSAM(sgd([*extra.parameters(), *model.parameters()]), rho=0.2, model=model)
    extra(torch.ones(1, 6, dtype=torch.float64)).sum().backward()

    def closure() -> Tensor:
        opt.zero_grad(set_to_none=set_to_none)
        loss = loss_of(model)
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last.loss_ascent is not None


def test_old_gradients_are_not_kept_alive():
    """The watch holds no memory: a gradient that the closure lets go of is gone before its forward."""
    import weakref

    model = net()
    opt = ssam(model)
    loss_of(model).backward()
    old = [weakref.ref(p.grad) for p in model.parameters()]
    alive: list[int] = []

    def closure() -> Tensor:
        opt.zero_grad()
        alive.append(sum(ref() is not None for ref in old))
        loss = loss_of(model)
        loss.backward()
        return loss

    opt.step(closure)
    assert alive[0] == 0
