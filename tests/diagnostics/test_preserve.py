"""Measurements leave a model as it was, exceptions included."""

import random
import warnings
import weakref

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from measurements import CALLS, DATA, EVERY, MEASURE, model, text
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fenland
from fenland.diagnostics import curvature


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_is_changed(call, mode):
    net = model()
    before = nets.state(net)
    grads = [p.grad for p in net.parameters()]
    call(net, nets.cross_entropy, DATA, mode=mode)
    assert nets.same(before, nets.state(net))
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_is_changed_by_an_exception(call, after):
    net = model()
    before = nets.state(net)
    calls = 0

    def breaks(net, batch):
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return nets.cross_entropy(net, batch)

    with pytest.raises(KeyboardInterrupt):
        call(net, breaks, DATA, mode="train")
    assert nets.same(before, nets.state(net))


def test_a_two_call_optimizer_does_not_take_a_measurement_for_its_step():
    """Its second pass starts from the random numbers of its own first one, whatever ran in between."""

    def run(measured):
        torch.manual_seed(0)
        net = nets.Conv()
        opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1, model=net)
        for x, y in DATA:
            if measured:
                curvature.trace(net, nets.cross_entropy, DATA, draws=2, mode="train")
            torch.rand(3)
            F.cross_entropy(net(x), y).backward()
            opt.ascend()
            F.cross_entropy(net(x), y).backward()
            opt.descend()
            opt.zero_grad()
        return nets.state(net)

    assert nets.same(run(measured=False), run(measured=True))


def test_memory_does_not_grow_with_the_number_of_batches():
    """At most the graphs of two batches are alive (the one at work and, for a moment, the one before)."""
    net = nn.Linear(4, 4)
    alive, most = weakref.WeakSet(), 0

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * 1.0

    def loss_fn(net, batch):
        nonlocal most
        most = max(most, len(alive))
        loss = torch.tanh(Marked.apply(net(batch))).square().mean()
        alive.add(loss)
        return loss

    for count in (3, 12):
        most = 0
        curvature.trace(net, loss_fn, [torch.randn(2, 4) for _ in range(count)], draws=4)
        assert most <= 2


def test_one_batch_costs_one_forward():
    net, calls = nn.Linear(4, 4), 0

    def loss_fn(net, batch):
        nonlocal calls
        calls += 1
        return torch.tanh(net(batch)).square().mean()

    curvature.trace(net, loss_fn, [torch.randn(2, 4)], draws=20)
    # The check of the products makes four gradients at displaced weights and a graph of its own.
    assert calls == 1 + 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_numbers_of_a_cpu():
    """Eigenvalues, trace, density, sharpness, doctor and range test on a device, and its generator as before."""

    def measure(device):
        net = model().to(device).double()
        data = [(x.to(device).double(), y.to(device)) for x, y in DATA]
        opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)
        torch.rand(3, device=device)
        before = torch.get_device_module(device).get_rng_state() if device == "cuda" else torch.get_rng_state()
        found = [
            curvature.extreme_eigenvalues(net, nets.cross_entropy, data).largest[0].value,
            curvature.trace(net, nets.cross_entropy, data, method="hutch++").value,
            curvature.density(net, nets.cross_entropy, data, draws=1, steps=20).share_below(0.0),
            fenland.sharpness(net, nets.cross_entropy, data, kind="worst").value,
            fenland.sharpness(net, nets.cross_entropy, data, kind="average", adaptive=True).value,
            fenland.diagnose(net, nets.cross_entropy, data, opt, mode="eval").ascent.gamma,
            fenland.find_rho(net, nets.cross_entropy, data, opt, mode="eval").points[-1].rise.value,
        ]
        after = torch.get_device_module(device).get_rng_state() if device == "cuda" else torch.get_rng_state()
        assert torch.equal(before, after)
        return found

    assert measure("cuda") == pytest.approx(measure("cpu"), rel=1e-6)


def test_a_shuffling_loader_gives_the_same_examples_in_every_pass():
    x, y = torch.cat([b[0] for b in DATA]), torch.cat([b[1] for b in DATA])
    loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
    found = curvature.extreme_eigenvalues(model(), nets.cross_entropy, loader, mode="train")
    again = curvature.extreme_eigenvalues(model(), nets.cross_entropy, list(loader), mode="eval")
    assert found.converged
    assert again.converged


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_a_loss_that_calls_backward_is_refused_and_leaves_the_gradients(call):
    net = model()
    before = nets.state(net)
    grads = [p.grad for p in net.parameters()]

    def eager(net, batch):
        loss = nets.cross_entropy(net, batch)
        if loss.requires_grad:
            loss.backward()
        return loss

    if call is MEASURE["landscape"]:  # needs no gradients, so it makes none
        call(net, eager, DATA)
    else:
        with pytest.raises(ValueError, match="loss_fn calls backward: it must return the loss"):
            call(net, eager, DATA)
    assert nets.same(before, nets.state(net))
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_it_measures_the_same_where_gradients_are_switched_off(call, off):
    net = model()
    want = call(net, nets.cross_entropy, DATA)
    with off():
        got = call(net, nets.cross_entropy, DATA)
        made_inside = call(net, nets.cross_entropy, [(x.clone(), y.clone()) for x, y in DATA])
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (off is torch.inference_mode)
        with pytest.raises(KeyboardInterrupt):
            call(net, interrupted, DATA)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (off is torch.inference_mode)
    assert torch.is_grad_enabled()
    assert text(got) == text(want)
    assert text(made_inside) == text(want)


def interrupted(net, batch):
    raise KeyboardInterrupt


class Restless(nn.Module):
    """Random by every generator there is, and it remembers and counts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(36, 4)
        self.torch_own = torch.Generator().manual_seed(1)
        self.numpy_own = np.random.default_rng(2)
        self.numpy_old = np.random.RandomState(3)
        self.python_own = random.Random(4)
        self.calls, self.name, self.cache = 0, "before", None

    def forward(self, x):
        x = x.flatten(1)
        self.calls, self.name, self.cache = self.calls + 1, "after", x
        self.late = x.mean()
        noise = [
            torch.rand(36),
            torch.rand(36, generator=self.torch_own),
            torch.from_numpy(np.random.random(36)),  # noqa: NPY002  (people use it)
            torch.from_numpy(self.numpy_own.random(36)),
            torch.from_numpy(self.numpy_old.random_sample(36)),
            torch.tensor([random.random() for _ in range(36)]),
            torch.tensor([self.python_own.random() for _ in range(36)]),
        ]
        return self.layer(x + sum(each.to(x) for each in noise))

    def states(self):
        legacy = np.random.get_state()  # noqa: NPY002
        return str([
            nets.state(self), self.torch_own.get_state().tolist(), self.numpy_own.bit_generator.state,
            [part.tolist() if isinstance(part, np.ndarray) else part for part in self.numpy_old.get_state()],
            [part.tolist() if isinstance(part, np.ndarray) else part for part in legacy], random.getstate(),
            self.python_own.getstate(), self.calls, self.name, self.cache, hasattr(self, "late"),
        ])  # fmt: skip


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_every_generator_and_plain_attribute_is_as_before(call):
    """Each pass draws the same, or the measurements would warn that the loss changes between passes."""
    net = Restless()
    before = net.states()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(net, nets.cross_entropy, DATA)
    assert net.states() == before
    calls = 0

    def breaks(net, batch):
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return nets.cross_entropy(net, batch)

    with pytest.raises(KeyboardInterrupt):
        call(net, breaks, DATA)
    assert net.states() == before


def test_a_generator_that_nobody_can_find_is_noticed():
    hidden = np.random.default_rng(0)

    def loss_fn(net, batch):
        return nets.cross_entropy(net, batch) * float(hidden.uniform(0.5, 1.5))

    with pytest.warns(UserWarning, match="the loss at the same weights changed from"):
        fenland.sharpness(model(), loss_fn, DATA)
