"""Gradients that no backward of ours accumulates: `torch.func.grad`, `torch.autograd.grad`, put into p.grad by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fenland
from peer_loops import SIZE, assert_same, batch, sgd

POINT = 14
RHO = 0.1


def model_of() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(SIZE, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def by_func(model: nn.Module, t: int) -> Tensor:
    """The gradient of a linear layer's weight comes transposed: a view, but of nothing larger."""
    x, y = batch(t)

    def loss_of(params: Any) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, params, (x,)), y)

    found, loss = torch.func.grad_and_value(loss_of)({name: p.detach() for name, p in model.named_parameters()})
    for name, p in model.named_parameters():
        p.grad = found[name]
    return loss


def by_transposes(model: nn.Module, t: int) -> Tensor:
    loss = backward(model, t)
    for p in model.parameters():
        p.grad = p.grad.t().contiguous().t()
    return loss


def by_grad(model: nn.Module, t: int) -> Tensor:
    x, y = batch(t)
    loss = F.cross_entropy(model(x), y)
    for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
        p.grad = g
    return loss


def backward(model: nn.Module, t: int) -> Tensor:
    x, y = batch(t)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


@pytest.mark.parametrize("form", ["closure", "two calls"])
@pytest.mark.parametrize("preset", [fenland.SAM, fenland.SSAM, fenland.GSAM], ids=lambda p: p.__name__)
@pytest.mark.parametrize("way", [by_func, by_transposes, by_grad])
def test_it_is_the_step_that_backward_takes(way, preset, form):
    results = []
    for gradient in (backward, way):
        model = model_of()
        opt = preset(sgd(model), rho=RHO, model=model)

        def closure(t: int, model: Any = model, opt: Any = opt, way: Callable[..., Tensor] = gradient) -> Tensor:
            opt.zero_grad()
            return way(model, t)

        for t in range(4):
            if form == "closure":
                opt.step(lambda t=t, closure=closure: closure(t))
            else:
                closure(t)
                opt.ascend()
                closure(t)
                opt.descend()
        results.append(dict(model.state_dict()))
    assert_same(results[1], results[0], 1e-12)
