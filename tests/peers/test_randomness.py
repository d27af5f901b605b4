"""Both passes draw the same numbers, whoever draws them; what advances twice and is no buffer is named once."""

from __future__ import annotations

import collections
import copy
import random
import warnings
import weakref
from collections.abc import Callable
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


class Drawn:
    """What was drawn, noted outside the module: its own lists are named where both passes move them on."""

    def __init__(self) -> None:
        self.numbers: list[float] = []


class Noisy(nn.Module):
    """A network whose forward draws from `kind` of generator."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = net(dropout=0.0), kind
        self.drawn = Drawn()
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

    @property
    def seen(self) -> list[float]:
        return self.drawn.numbers

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


class Holder(nn.Module):
    """What `advance(self, x)` does in forward happens to `self.held`."""

    def __init__(self, held: Any, advance: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.held, self.advance = net(), held, advance
        self.kept = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.advance(self, x)
        return self.net(x)


def put(self: Any, x: Tensor) -> None:
    self.held["seen"] = self.held.get("seen", 0) + len(x)


def fill_anew(self: Any, x: Tensor) -> None:
    self.held.clear()
    self.held.extend([x * 2, x * 3])


def train(form: str, opt: Any, model: nn.Module) -> None:
    for t in range(STEPS):
        FORMS[form](opt, lambda t=t: memory_loss(model, t))


def many() -> list[Tensor]:
    return [torch.zeros(2) for _ in range(40)]


GROWN: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Any]]] = {
    "a list of tensors": (list, lambda m, x: m.held.append(x.detach())),
    "a list of numbers": (list, lambda m, x: m.held.append(len(x))),
    "a list of pairs": (list, lambda m, x: m.held.append((x.detach(), 1))),
    "a long list": (lambda: [0] * 100_000, lambda m, x: m.held.append(1)),
    "a list that shrinks": (lambda: [0] * 50, lambda m, x: m.held.pop()),
    "a counter in a dict": (dict, put),
    "a counter of collections": (collections.Counter, lambda m, x: m.held.update("a")),
    "keys of a dict": (dict, lambda m, x: m.held.setdefault(len(m.held), x)),
    "a set": (set, lambda m, x: m.held.add(len(m.held))),
    "a queue that grows": (lambda: collections.deque(maxlen=500), lambda m, x: m.held.append(x.detach())),
    "a full queue of tensors": (lambda: collections.deque(many(), maxlen=40), lambda m, x: m.held.append(x.detach())),
    "a full queue of numbers": (
        lambda: collections.deque(range(5), maxlen=5),
        lambda m, x: m.held.append(m.held[-1] + 1),
    ),
    "a tensor in a list": (lambda: [torch.zeros(3)], lambda m, x: m.held[0].add_(1)),
    "a tensor that the first pass makes": (dict, lambda m, x: m.held.setdefault("mean", torch.zeros(3)).add_(1)),
    "a tensor in a dict": (lambda: {"mean": torch.zeros(3)}, lambda m, x: m.held["mean"].add_(1)),
}
FILLED: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Any]]] = {
    "filled anew": (list, fill_anew),
    "a new list": (list, lambda m, x: setattr(m, "held", [x * 2])),
    "a dict of activations": (dict, lambda m, x: m.held.update(input=x * 2, double=x * 4)),
    "beside a constant": (lambda: {"mask": torch.ones(2)}, lambda m, x: m.held.update(now=x * 2)),
    "a cache by shape": (dict, lambda m, x: m.held.setdefault(tuple(x.shape), torch.ones(2))),
    "never touched": (lambda: [1, 2, 3], lambda m, x: None),
    "an inference tensor": (lambda: torch.inference_mode()(torch.ones)(3), lambda m, x: None),
}


@forms
@pytest.mark.parametrize("kind", GROWN)
def test_a_container_that_a_forward_grows_is_named_once(form, kind):
    """And one that is named in the module is as after one forward a step, at w."""
    made, advance = GROWN[kind]
    model = Holder(made(), advance)
    opt = build("SAM", sgd(model.net), rho=0.1, model=model)
    with pytest.warns(UserWarning, match=r"Holder\.held changed in pass 1 and again in pass 2") as caught:
        train(form, opt, model)
    assert len(caught) == 1
    alone, guarded = Holder(made(), advance), Holder(made(), advance)
    guarded.fenland_guarded = ("held",)
    opt = build("SAM", torch.optim.SGD(guarded.net.parameters(), lr=0.0), rho=0.1, model=guarded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(STEPS):
            FORMS[form](opt, lambda t=t: memory_loss(guarded, t))
            alone(batch(t)[0])
    assert type(guarded.held) is type(alone.held)
    assert str(guarded.held) == str(alone.held)


@forms
@pytest.mark.parametrize("kind", FILLED)
def test_a_container_that_each_forward_fills_anew_is_not_named(form, kind):
    made, advance = FILLED[kind]
    model = Holder(made(), advance)
    opt = build("SAM", sgd(model.net), rho=0.1, model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(form, opt, model)


def test_nothing_in_a_container_is_kept_alive():
    """The comparison remembers who was there, not what it was."""
    model = Holder([], fill_anew)
    model.held = [torch.ones(3)]
    gone = weakref.ref(model.held[0])
    opt = build("SAM", sgd(model.net), rho=0.1, model=model)
    FORMS["two calls"](opt, lambda: memory_loss(model, 0))
    assert gone() is None


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
