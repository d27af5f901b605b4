"""Both passes draw the same numbers, whoever draws them; what advances twice and is no buffer is named once."""

from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fenland
from peer_loops import FORMS, SIZE, assert_same, batch, build, net, sgd

POINT = 11
STEPS = 3
forms = pytest.mark.parametrize("form", FORMS)


class Noisy(nn.Module):
    """A network whose forward draws from `kind` of generator."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = net(dropout=0.0), kind
        self.seen: list[float] = []
        if kind == "its torch.Generator":
            self.draws = torch.Generator().manual_seed(1)
        elif kind == "a submodule's torch.Generator":
            self.net.body.draws = torch.Generator().manual_seed(1)
        elif kind == "its numpy Generator":
            self.draws = np.random.default_rng(1)
        elif kind == "its random.Random":
            self.draws = random.Random(1)

    def draw(self) -> float:
        kind = self.kind
        if kind == "numpy":
            return float(np.random.rand())  # noqa: NPY002
        if kind == "python":
            return random.random()
        if kind == "its torch.Generator":
            return float(torch.rand((), generator=self.draws))
        if kind == "a submodule's torch.Generator":
            return float(torch.rand((), generator=self.net.body.draws))
        if kind == "its numpy Generator":
            return float(self.draws.random())
        if kind == "its random.Random":
            return self.draws.random()
        return float(torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        by = self.draw()
        self.seen.append(by)
        return self.net(x + by)


KINDS = ["torch", "numpy", "python", "its torch.Generator", "a submodule's torch.Generator"]
HELD = [*KINDS, "its numpy Generator", "its random.Random"]


def loss_of(model: Noisy, t: int) -> Tensor:
    x, y = batch(t)
    return nn.functional.cross_entropy(model(x), y)


def seed() -> None:
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002


@forms
@pytest.mark.parametrize("kind", HELD)
def test_pass_2_draws_what_pass_1_drew(form, kind):
    """And afterwards every generator is as after one pass."""
    model = Noisy(kind)
    opt = build("SAM", sgd(model), rho=0.2, model=model)
    alone = Noisy(kind)
    seed()
    for t in range(STEPS):
        FORMS[form](opt, lambda t=t: loss_of(model, t))
    after = model.draw()
    seed()
    for t in range(STEPS):
        loss_of(alone, t)
    assert model.seen[0::2] == model.seen[1::2] == alone.seen
    assert after == alone.draw()


@pytest.mark.parametrize("kind", ["numpy", "python"])
@pytest.mark.parametrize("guarded", [True, False])
def test_mixup_inside_the_closure(kind, guarded):
    """Augmentation in the closure, with or without model=: the two passes see one batch."""
    model = net(dropout=0.0)
    model.body[1] = nn.Identity()
    opt = build("SSAM", sgd(model), rho=0.2, **({"model": model} if guarded else {}))
    x, y = batch(0)
    seen: list[tuple[float, list[int]]] = []

    def closure() -> Tensor:
        opt.zero_grad()
        if kind == "numpy":
            share, order = float(np.random.beta(0.4, 0.4)), np.random.permutation(len(x)).tolist()  # noqa: NPY002
        else:
            share, order = random.betavariate(0.4, 0.4), random.sample(range(len(x)), len(x))
        seen.append((share, order))
        out = model(share * x + (1 - share) * x[order])
        loss = share * nn.functional.cross_entropy(out, y) + (1 - share) * nn.functional.cross_entropy(out, y[order])
        loss.backward()
        return loss

    seed()
    for _ in range(STEPS):
        opt.step(closure)
    assert seen[0::2] == seen[1::2]
    assert len({share for share, _ in seen}) == STEPS


@pytest.mark.parametrize("kind", HELD)
def test_replay_rng_false_leaves_all_alone(kind):
    model = Noisy(kind)
    opt = build("SAM", sgd(model), rho=0.2, model=model, replay_rng=False)
    seed()
    FORMS["closure"](opt, lambda: loss_of(model, 0))
    assert model.seen[0] != model.seen[1]


@forms
@pytest.mark.parametrize("kind", HELD)
def test_a_failed_or_skipped_step_gives_the_numbers_back(form, kind):
    model = Noisy(kind)
    opt = build("SAM", sgd(model), rho=0.2, model=model)
    seed()
    FORMS[form](opt, lambda: loss_of(model, 0) * float("nan"))
    assert bool(opt.last.skipped)
    skipped = model.seen[0]
    FORMS[form](opt, lambda: loss_of(model, 0))
    if form == "closure":
        assert model.seen[-2:] == [skipped] * 2
    else:
        assert model.seen[-1] == model.seen[-2] == skipped


# State of modules that no buffer holds


class Memory(nn.Module):
    """A cross-batch memory whose pointer is a plain attribute of `kind`, as XBM and MoCo variants have it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.head = nn.Linear(SIZE, 3).double()
        self.register_buffer("queue", torch.zeros(64, SIZE, dtype=torch.float64))
        self.queue_idx: Any = {"int": 0, "float": 0.0, "tensor": torch.zeros((), dtype=torch.long)}[kind]

    def forward(self, x: Tensor) -> Tensor:
        i = int(self.queue_idx)
        self.queue[i : i + len(x)] = x.detach()
        if isinstance(self.queue_idx, Tensor):
            self.queue_idx = (self.queue_idx + len(x)) % 64
        else:
            self.queue_idx = type(self.queue_idx)((i + len(x)) % 64)
        return self.head(x + self.queue.mean(0))


class InPlace(Memory):
    """The pointer is a tensor that is changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        i = int(self.queue_idx)
        self.queue[i : i + len(x)] = x.detach()
        self.queue_idx.add_(len(x)).remainder_(64)
        return self.head(x + self.queue.mean(0))


def memory_loss(model: nn.Module, t: int) -> Tensor:
    x, y = batch(t)
    return nn.functional.cross_entropy(model(x), y)


@forms
@pytest.mark.parametrize("kind", ["int", "float", "tensor", "in place"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_pointer_that_advances_twice_is_named_once(form, kind, inside):
    made = InPlace("tensor") if kind == "in place" else Memory(kind)
    model = nn.Sequential(nn.Identity(), made) if inside else made
    opt = build("SAM", sgd(model), rho=0.1, model=model)

    def train() -> None:
        for t in range(STEPS):
            FORMS[form](opt, lambda t=t: memory_loss(model, t))

    with pytest.warns(UserWarning, match="queue_idx") as caught:
        train()
    assert len(caught) == 1
    said = str(caught[0].message)
    assert type(made).__name__ in said
    assert "buffer" in said, "the cure"


@forms
def test_ordinary_modules_are_not_named(form):
    """BatchNorm, dropout, spectral norm, LSTM, attention, lazy layers, hooks: nothing of theirs is such state."""
    model = nn.Sequential(
        nn.LazyLinear(8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.2),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
        nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1, batch_first=True),
        nn.Linear(8, 3),
    )
    model(torch.randn(4, SIZE))
    opt = build("SAM", sgd(model), rho=0.1, model=model)
    x, y = batch(0, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STEPS):
            FORMS[form](opt, lambda: nn.functional.cross_entropy(model(x), y))


@forms
def test_what_does_not_change_twice_is_not_named(form):
    """An attribute that the loop itself sets before each step, and one that a forward sets to the same value."""

    class Marked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.epoch, self.last_size, self.scale = net(), 0, 0, torch.ones(())

        def forward(self, x: Tensor) -> Tensor:
            self.last_size = len(x)
            return self.net(x) * self.scale

    model = Marked()
    opt = build("SAM", sgd(model), rho=0.1, model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(STEPS):
            model.epoch = t
            FORMS[form](opt, lambda t=t: memory_loss(model, t))


@forms
def test_as_a_buffer_it_is_right(form):
    """What the warning tells people to do."""
    model = InPlace("tensor")
    alone = copy.deepcopy(model)
    for m in (model, alone):
        pointer = m.queue_idx
        del m.queue_idx
        m.register_buffer("queue_idx", pointer)
    opt = build("SAM", torch.optim.SGD(model.parameters(), lr=0.0), rho=0.1, model=model)
    for t in range(STEPS):
        FORMS[form](opt, lambda t=t: memory_loss(model, t))
        memory_loss(alone, t)
    assert_same(dict(model.state_dict()), dict(alone.state_dict()))


def test_it_is_said():
    assert "numpy" in (fenland.SharpnessAware.__doc__ or "").lower(), "the docstring of replay_rng says what it covers"
