"""Without model=, the two-call form warns of any randomness in a forward, not of nn.Dropout alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fenland
from peer_loops import CLASSES, FORMS, SIZE, batch, sgd

POINT = 12
STEPS = 3


class Functional(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.lift, self.head, self.p = nn.Linear(SIZE, 8), nn.Linear(8, CLASSES), p

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(torch.tanh(self.lift(x)), self.p, self.training))


class Attention(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.attention, self.head = (
            nn.MultiheadAttention(SIZE, 2, dropout=p, batch_first=True),
            nn.Linear(SIZE, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = x.unsqueeze(1).repeat(1, 3, 1)
        return self.head(self.attention(z, z, z, need_weights=False)[0].mean(1))


class Scaled(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.lift, self.head, self.p = nn.Linear(SIZE, 8), nn.Linear(8, CLASSES), p

    def forward(self, x: Tensor) -> Tensor:
        z = self.lift(x).view(-1, 2, 4)
        return self.head(F.scaled_dot_product_attention(z, z, z, dropout_p=self.p * self.training).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 4, num_layers=2, dropout=p, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(-1, 2, 3))[0][:, -1])


class Noise(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.head, self.p = nn.Linear(SIZE, CLASSES), p

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.p * torch.randn_like(x) if self.training and self.p else x)


class Layer(nn.Module):
    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(SIZE, 8), nn.Dropout(p), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "F.dropout": Functional,
    "attention": Attention,
    "scaled_dot_product_attention": Scaled,
    "LSTM": Recurrent,
    "randn in forward": Noise,
    "nn.Dropout": Layer,
}
models = pytest.mark.parametrize("kind", MODELS)
two = pytest.mark.parametrize("form", ["two calls", "block"])


def train(net: nn.Module, form: str, **options: object) -> None:
    opt = fenland.SAM(sgd(net), rho=0.1, **options)
    for t in range(STEPS):
        x, y = batch(t, torch.float32)
        FORMS[form](opt, lambda x=x, y=y: F.cross_entropy(net(x), y))


@models
@two
def test_another_mask_at_the_ascent_point_is_one_warning(kind, form):
    with pytest.warns(UserWarning, match="model=") as caught:
        train(MODELS[kind](), form)
    assert len(caught) == 1


@models
@pytest.mark.parametrize("quiet", ["the closure form", "model=", "p = 0", "eval", "replay_rng=False"])
def test_nothing_is_said_where_nothing_is_wrong(kind, quiet):
    model = MODELS[kind](**({"p": 0.0} if quiet == "p = 0" else {}))
    if quiet == "eval":
        model.eval()
    options = {"model=": {"model": model}, "replay_rng=False": {"replay_rng": False}}.get(quiet, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, "closure" if quiet == "the closure form" else "two calls", **options)


@two
def test_random_numbers_of_the_loop_are_not_the_model_s(form):
    """Shuffling, augmentation and initialisation between steps draw from the same generator."""
    model = MODELS["nn.Dropout"](p=0.0)
    opt = fenland.SAM(sgd(model), rho=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(STEPS):
            x, y = batch(t, torch.float32)
            x = x + 0.1 * torch.randn_like(x)
            torch.randperm(10)
            FORMS[form](opt, lambda x=x, y=y: F.cross_entropy(model(x), y))


@models
def test_with_model_both_forms_draw_one_mask(kind):
    weights = []
    for form in FORMS:
        torch.manual_seed(3)
        model = MODELS[kind]()
        torch.manual_seed(4)
        train(model, form, model=model)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_a_frozen_part_s_randomness_counts_too():
    """A frozen backbone with functional dropout, trained head: masks differ all the same."""
    backbone, head = Functional(), nn.Linear(CLASSES, CLASSES)
    backbone.requires_grad_(False)
    whole = nn.Sequential(backbone, head)
    opt = fenland.SAM(sgd(head), rho=0.1)
    x, y = batch(0, torch.float32)
    with pytest.warns(UserWarning, match="model="):
        FORMS["two calls"](opt, lambda: F.cross_entropy(whole(x), y))
