"""Tensors that a model makes of its weights: parametrized, pruned, tied, swapped in by name, cached.

What is made at w must be made anew at w + e. The truth is the two-pass loop written out, with plain gradient descent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import fenland
from peer_loops import CLASSES, FORMS, SIZE, assert_same, batch, loss_of

POINT = 4
STEPS = 4
LR, RHO = 0.1, 0.1


class Symmetric(nn.Module):
    """Saves nothing for backward, so that a second backward through a cached result is no error."""

    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).T


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(SIZE, SIZE) for _ in range(2))
        self.second.weight = self.first.weight
        self.head = nn.Linear(SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class ByName(nn.Module):
    """torch.func.functional_call over its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(self.inner, dict(self.inner.named_parameters()), (x,))
        return found


class BoundedTable(nn.Module):
    """nn.Embedding(max_norm=) writes to its weight in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(SIZE, SIZE, max_norm=1.0), nn.Linear(SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x.argmax(1)))


def layers(change: Callable[[nn.Linear], Any]) -> nn.Module:
    first = nn.Linear(SIZE, SIZE)
    change(first)
    return nn.Sequential(first, nn.Tanh(), nn.Linear(SIZE, CLASSES))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: layers(parametrizations.weight_norm),
    "spectral_norm": lambda: layers(parametrizations.spectral_norm),
    "spectral_norm by a hook": lambda: layers(nn.utils.spectral_norm),
    "orthogonal": lambda: layers(parametrizations.orthogonal),
    "symmetric": lambda: layers(lambda m: parametrize.register_parametrization(m, "weight", Symmetric())),
    "pruned": lambda: layers(lambda m: prune.l1_unstructured(m, "weight", 0.5)),
    "tied": Tied,
    "functional_call": ByName,
    "max_norm": BoundedTable,
}


def built(name: str) -> nn.Module:
    torch.manual_seed(2)
    return MODELS[name]().double()


def by_hand(model: nn.Module, t: int) -> None:
    """One SAM step of plain gradient descent, from the definition; buffers as after one forward at w.

    In place and not on a copy: a model with hooks that compute its weights cannot be copied.
    """
    params, buffers = list(model.parameters()), dict(model.named_buffers())

    def gradient() -> list[Tensor]:
        return list(torch.autograd.grad(loss_of(model, t), params))

    before = {name: x.clone() for name, x in buffers.items()}
    g = gradient()
    after = {name: x.clone() for name, x in buffers.items()}
    w = [p.detach().clone() for p in params]  # nn.Embedding(max_norm=) has shortened rows in the first pass
    norm = torch.cat([x.flatten() for x in g]).norm()
    with torch.no_grad():
        for p, x in zip(params, g, strict=True):
            p.add_(RHO * x / norm)
        for name, x in buffers.items():
            x.copy_(before[name])
    h = gradient()
    with torch.no_grad():
        for p, home, x in zip(params, w, h, strict=True):
            p.copy_(home - LR * x)
        for name, x in buffers.items():
            x.copy_(after[name])


def train(name: str, form: str, around: Callable[[], Any], **options: Any) -> tuple[nn.Module, nn.Module]:
    """A model trained by fenland, each step inside `around()`, and one by hand."""
    model, want = built(name), built(name)
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO, model=model, **options)
    for t in range(STEPS):
        opt.zero_grad()
        with around():
            FORMS[form](opt, lambda t=t: loss_of(model, t))
        by_hand(want, t)
    return model, want


@pytest.mark.parametrize("perturb", ["auto", "inplace", "offload"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_makes_of_its_weights_is_made_anew_at_the_ascent_point(name, form, perturb):
    model, want = train(name, form, contextlib.nullcontext, perturb=perturb)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["symmetric", "weight_norm", "orthogonal"])
def test_the_cache_of_parametrize_is_emptied_where_weights_move(name, form):
    """`with parametrize.cached():` around a step served tensors of w at w + e: 8e-3 off in four steps, no error."""
    model, want = train(name, form, parametrize.cached)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert not parametrize._cache


@pytest.mark.parametrize("form", FORMS)
def test_the_cache_holds_nothing_of_the_ascent_point_after_the_step(form):
    """A forward after the step, inside the same context, is one at w."""
    model = built("symmetric")
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=RHO, model=model)
    x, _ = batch()
    before = model(x).detach()
    with parametrize.cached():
        FORMS[form](opt, lambda: loss_of(model))
        assert torch.equal(model(x), before)


def test_pruning_after_the_optimizer_was_built():
    """prune keeps the optimizer's parameter as `weight_orig` and puts a plain tensor in its place."""
    model, want = built("tied"), built("tied")
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO, model=model)
    for m in (model, want):
        prune.l1_unstructured(m.head, "weight", 0.5)
    for t in range(STEPS):
        FORMS["two calls"](opt, lambda t=t: loss_of(model, t))
        by_hand(want, t)
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert int((model.head.weight == 0).sum()) == model.head.weight.numel() // 2


def test_the_models_of_these_tests_differ_at_the_ascent_point():
    for name in MODELS:
        model = built(name)
        x, y = batch()
        opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO, model=model)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.ascend()
        assert F.cross_entropy(model(x), y) > loss
        opt.restore()
