"""Batches of every kind weigh by their examples, or ask for their number."""

import dataclasses
from collections import UserDict
from types import SimpleNamespace
from typing import NamedTuple

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, TensorDataset

import fenland
from fenland.diagnostics import batches as each
from fenland.diagnostics import curvature, landscape

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(2))
CUTS = ((0, 30), (30, 36), (36, 40))  # batches of 30, 6 and 4 examples


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def loss_fn(model, batch):
    x, y = parts(batch)
    return F.cross_entropy(model(x), y)


def parts(batch):
    if isinstance(batch, tuple):
        return batch
    return (batch.x, batch.y) if hasattr(batch, "x") else (batch["x"], batch["y"])


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    y: torch.Tensor
    note: str = "text"


@dataclasses.dataclass(frozen=True, slots=True)
class Strict:
    """Frozen, with slots, and a constructor that takes no two arguments by position."""

    x: torch.Tensor
    y: torch.Tensor = dataclasses.field(kw_only=True)

    def __post_init__(self):
        assert len(self.x) == len(self.y)


class Named(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Nested:
    inner: Record

    @property
    def x(self):
        return self.inner.x

    @property
    def y(self):
        return self.inner.y


KNOWN = {
    "dataclass": lambda x, y: Record(x, y),
    "frozen": lambda x, y: Strict(x, y=y),
    "nested": lambda x, y: Nested(Record(x, y)),
    "named tuple": Named,
    "mapping": lambda x, y: {"x": x, "y": y},
}
UNKNOWN = {
    "object": lambda x, y: SimpleNamespace(x=x, y=y),
    "weights beside": lambda x, y: {"x": x, "y": y, "weights": torch.ones(3)},
    "channels first": lambda x, y: SimpleNamespace(x=x, y=y, mask=torch.ones(len(x))),
}


def made(make):
    return [make(X[a:b], Y[a:b]) for a, b in CUTS]


PAIRS = made(lambda x, y: (x, y))


def numbers(batches, **options):
    found = curvature.extreme_eigenvalues(net(), loss_fn, batches, **options)
    return found.smallest[0].value, found.largest[0].value, found.loss


@pytest.mark.parametrize("kind", KNOWN)
def test_known_kinds_weigh_by_their_examples(kind):
    batches = made(KNOWN[kind])
    assert numbers(batches) == numbers(PAIRS)
    assert numbers(batches, dtype=torch.float64) == numbers(PAIRS, dtype=torch.float64)
    one, two = (fenland.sharpness(net(), loss_fn, b, m=2, rho=0.3) for b in (batches, PAIRS))
    assert one == two


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_kinds_ask_for_the_size(kind):
    batches = made(UNKNOWN[kind])
    for call in (numbers, landscape_of, lambda b: fenland.sharpness(net(), loss_fn, b), doctor):
        with pytest.raises(ValueError, match=r"how many examples is a (SimpleNamespace|dict).* with size=lambda"):
            call(batches)
    assert numbers(batches, size=lambda batch: len(batch.y if hasattr(batch, "y") else batch["y"])) == numbers(PAIRS)
    with pytest.raises(ValueError, match=r"m = 2: cannot cut a (SimpleNamespace|dict)"):
        fenland.sharpness(net(), loss_fn, batches[:1], m=2)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_single_batch_needs_no_size(kind):
    assert numbers(made(UNKNOWN[kind])[:1]) == numbers(PAIRS[:1])


def landscape_of(batches, **options):
    return landscape.random_slice(net(), loss_fn, batches, dims=1, points=3, **options).losses.tolist()


def doctor(batches, **options):
    return fenland.diagnose(net(), loss_fn, batches, **options).loss


def test_the_size_counts_in_every_measurement():
    batches = made(UNKNOWN["object"])

    def size(batch):
        return len(batch.x)

    assert landscape_of(batches, size=size) == landscape_of(PAIRS)
    assert doctor(batches, size=size) == doctor(PAIRS)
    one, two = (fenland.find_rho(net(), loss_fn, b, points=5) for b in (batches, PAIRS))
    # Its batches count alike; a batch of 30 equal losses is that loss up to rounding.
    assert [point.rise.value for point in one.points] == pytest.approx([point.rise.value for point in two.points])


def test_arrays_are_no_tensors():
    arrays = [(X[a:b].numpy(), Y[a:b].numpy()) for a, b in CUTS]

    def of_arrays(model, batch):
        return F.cross_entropy(model(torch.from_numpy(batch[0])), torch.from_numpy(batch[1]))

    with pytest.raises(ValueError, match="how many examples is a tuple"):
        curvature.trace(net(), of_arrays, arrays, draws=2)
    found = curvature.extreme_eigenvalues(net(), of_arrays, arrays, size=lambda batch: np.shape(batch[0])[0])
    assert found.largest[0].value == numbers(PAIRS)[1]


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        ((X, Y), r"a tuple of tensors of shapes \(40, 5\), \(40,\): looks like one batch; pass \[\(...\)\]"),
        ([X, Y], r"a list of tensors of shapes \(40, 5\), \(40,\): looks like one batch"),
        ([X, X[:, 0]], "looks like one batch"),
        (Named(X, Y), "a Named of tensors"),
        (Record(X, Y), r"a Record: looks like one batch; pass \[batch\]"),
    ],
    ids=["pair", "list", "two shapes", "named tuple", "dataclass"],
)
def test_one_batch_for_several_is_refused(batches, match):
    with pytest.raises(TypeError, match=match):
        curvature.trace(net(), loss_fn, batches)


def test_a_list_of_inputs_is_a_list_of_batches():
    each.check_batches([X, X[:7], X[:1]])
    each.check_batches([X])
    assert [weight for _, weight in each.weighed([X, X[:7]])] == [40, 7]


class Both(IterableDataset):
    """A data set that shuffles by a generator of its own."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(5)

    def __iter__(self):
        return iter([(X[i], Y[i]) for i in torch.randperm(len(X), generator=self.generator).tolist()])


def loaders():
    data = TensorDataset(X, Y)
    seeded = [torch.Generator().manual_seed(i) for i in range(3)]
    sampler = RandomSampler(data, generator=seeded[1])
    drawn = BatchSampler(RandomSampler(data, generator=seeded[2]), 9, drop_last=True)
    own = Both()
    return {
        "loader": (DataLoader(data, 9, shuffle=True, drop_last=True, generator=seeded[0]), seeded[0]),
        "sampler": (DataLoader(data, 9, sampler=sampler, drop_last=True), seeded[1]),
        "batch sampler": (DataLoader(data, batch_sampler=drawn), seeded[2]),
        "data set": (DataLoader(own, 9, drop_last=True), own.generator),
    }


@pytest.mark.parametrize("kind", list(loaders()))
def test_a_loader_s_own_generator_gives_each_pass_the_same_batches_and_stays(kind):
    loader, generator = loaders()[kind]
    same, state = list(loaders()[kind][0]), generator.get_state()
    for measured in (*MEASURED.values(), lambda f, b: fenland.sharpness(net(), f, b).values):
        assert measured(nets.cross_entropy, loader) == measured(nets.cross_entropy, same)
        assert torch.equal(generator.get_state(), state)


MEASURED = {
    "sharpness": lambda f, b: fenland.sharpness(net(), f, b).value,
    "curvature": lambda f, b: curvature.extreme_eigenvalues(net(), f, b).largest,
    "find_rho": lambda f, b: fenland.find_rho(net(), f, b, points=3).points,
    "diagnose": lambda f, b: str(fenland.diagnose(net(), f, b)),
    "landscape": lambda f, b: landscape.random_slice(net(), f, b, dims=1, points=3).losses.tolist(),
    "loop": lambda f, b: landscape.random_slice(net(), f, b, dims=1, points=3, engine="loop").losses.tolist(),
}


@pytest.mark.parametrize("call", MEASURED.values(), ids=MEASURED)
def test_a_loss_may_take_things_out_of_its_batch(call):
    batches = [{"x": [X[a:b]], "y": UserDict(y=Y[a:b])} for a, b in CUTS]

    def takes(model, batch):
        return loss_fn(model, (batch.pop("x").pop(), batch["y"].pop("y")))

    def reads(model, batch):
        return loss_fn(model, (batch["x"][0], batch["y"]["y"]))

    assert call(takes, batches) == call(reads, batches)
    assert all(set(batch) == {"x", "y"} and batch["x"] and batch["y"] for batch in batches)


def test_what_is_used_up_after_one_pass_says_so():
    class Once:
        def __init__(self):
            self.left = iter(PAIRS)

        def __iter__(self):
            return self.left

    with pytest.raises(ValueError, match=r"3 batches with 40 examples in the first pass, 0 with .* DataLoader"):
        fenland.sharpness(net(), loss_fn, Once())
