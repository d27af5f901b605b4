"""What a forward changes beside buffers and generators: attributes of modules, and weights, in every measurement."""

import collections
import warnings

import nets
import pytest
import torch
import torch.nn.functional as F
from measurements import EVERY, MEASURE
from torch import nn

import fenland
from fenland.diagnostics import curvature, landscape

X = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (20,), generator=torch.Generator().manual_seed(2))
BATCHES = [(X[:10], Y[:10]), (X[10:], Y[10:])]


class Recurrent(nn.Module):
    """Goes on from the state of the call before, counts, lists, and adds up in a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)
        self.state, self.calls, self.total = (torch.ones(1, 10, 4), torch.ones(1, 10, 4)), 0, torch.zeros(3)
        self.listed, self.cached, self.queue = [1], {"a": 1}, collections.deque([0, 0], maxlen=2)

    def forward(self, x):
        found, state = self.cell(x[:, None], self.state)
        self.state, self.calls = tuple(t.detach() for t in state), self.calls + 1
        self.total.add_(1)
        self.listed.append(2)
        self.cached["b"] = self.total
        self.queue.append(self.calls)
        self.late = [x]
        return self.head(found[:, -1]) * (1 + 0.01 * self.calls + 0.01 * self.total.mean() + 0.01 * sum(self.listed))

    def all_that_it_holds(self):
        return (self.state, self.calls, self.total.tolist(), list(self.listed), dict(self.cached), list(self.queue))


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_each_pass_begins_with_the_state_of_entry_and_it_is_there_afterwards(call):
    """Else the loss at the same weights would change from pass to pass, which is a warning."""
    net = Recurrent()
    before, state, total = net.all_that_it_holds(), net.state, net.total
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(net, nets.cross_entropy, BATCHES)
    assert net.all_that_it_holds() == before
    assert net.state is state
    assert net.total is total
    assert not hasattr(net, "late")


def test_the_hessian_of_a_recurrent_model_is_that_of_one_pass_from_the_state_of_entry():
    net = Recurrent().double()
    net.state = tuple(t.double() for t in net.state)
    batches = [(x.double(), y) for x, y in BATCHES]
    found = curvature.extreme_eigenvalues(net, nets.cross_entropy, batches, tol=1e-6)

    again = Recurrent().double()  # the same state, and its own calls in the order of one pass
    again.state = tuple(t.double() for t in again.state)
    params = list(again.parameters())
    loss = sum(nets.cross_entropy(again, b) for b in batches) / 2
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, params, create_graph=True)])
    rows = [torch.autograd.grad(g, params, retain_graph=True, allow_unused=True) for g in flat]
    h = torch.stack(
        [
            torch.cat([(torch.zeros_like(p) if r is None else r).reshape(-1) for r, p in zip(row, params, strict=True)])
            for row in rows
        ]
    )
    values = torch.linalg.eigvalsh(h)
    assert found.largest[0].value == pytest.approx(float(values[-1]), rel=1e-5)
    assert found.smallest[0].value == pytest.approx(float(values[0]), rel=1e-5)


def test_points_of_a_landscape_do_not_see_each_other_s_state():
    def losses(chunk):
        return landscape.random_slice(Recurrent(), nets.cross_entropy, BATCHES, dims=1, points=5, chunk=chunk).losses

    assert torch.equal(losses(5), losses(1))


class Renormed(nn.Module):
    """Torch shortens the rows of its embedding in place, in any mode."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 4, max_norm=0.5), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.table(x.argmax(1)))


class Momentum(nn.Module):
    """A frozen encoder follows the trained one in forward (He et al. 2020, arXiv 1911.05722)."""

    def __init__(self):
        super().__init__()
        self.online, self.slow = nn.Linear(5, 3), nn.Linear(5, 3).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for p, q in zip(self.slow.parameters(), self.online.parameters(), strict=True):
                p.copy_(0.9 * p + 0.1 * q)
        return self.online(x) + self.slow(x)


class Merging(nn.Linear):
    """An adapter that adds itself to the frozen weight in eval mode (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self):
        super().__init__(5, 3)
        self.weight.requires_grad_(False)
        self.low, self.merged = nn.Parameter(torch.randn(3, 1)), False

    def train(self, mode=True):
        if mode == self.merged:
            self.weight.data += self.low.detach() * (-0.1 if mode else 0.1)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return F.linear(x, self.weight if self.merged else self.weight + 0.1 * self.low, self.bias)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("make", [Renormed, Momentum, Merging])
def test_weights_that_a_forward_or_a_mode_changes_are_as_before(make, call):
    torch.manual_seed(0)
    net = make()
    before = nets.state(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(net, nets.cross_entropy, BATCHES)
    assert nets.same(before, nets.state(net))


def test_a_loss_that_trains_is_refused_and_its_step_undone():
    net = nn.Linear(5, 3)
    before = nets.state(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def trains(net, batch):
        optimizer.zero_grad()
        loss = nets.cross_entropy(net, batch)
        loss.backward()
        optimizer.step()
        return loss

    with pytest.raises(ValueError, match="loss_fn calls backward"):
        fenland.sharpness(net, trains, BATCHES)
    assert nets.same(before, nets.state(net))


def test_what_fails_on_entry_leaves_nothing_changed():
    class Stubborn(nn.Linear):
        def train(self, mode=True):
            if not mode:
                raise RuntimeError("no such mode here")
            return super().train(mode)

    net = Stubborn(5, 3)
    nets.cross_entropy(net, BATCHES[0]).backward()
    grads = [p.grad for p in net.parameters()]
    opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1, model=net)
    with torch.no_grad(), pytest.raises(RuntimeError, match="no such mode here"):
        fenland.sharpness(net, nets.cross_entropy, BATCHES)
    assert torch.is_grad_enabled()
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))
    hooks = [hook.watch() for hook in net._forward_pre_hooks.values() if getattr(hook, "watch", None)]
    assert hooks
    assert not any(watch.quiet for watch in hooks)
    del opt


@pytest.mark.parametrize("call", MEASURE.values(), ids=MEASURE)
def test_weights_that_are_cached_do_not_hide_the_perturbation(call):
    def made():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        nn.utils.parametrizations.orthogonal(net[0])
        return net

    def numbers(found):
        return {k: str(v) for k, v in vars(found).items() if k != "seconds"}

    want = call(made(), nets.cross_entropy, BATCHES)
    net = made()
    with nn.utils.parametrize.cached():
        net(X)
        got = call(net, nets.cross_entropy, BATCHES)
    assert numbers(got) == numbers(want)
