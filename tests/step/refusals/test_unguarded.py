"""`model=` that is not the module which trains, or only a part of it: what it does not hold is named once."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

import fenland


class Net(nn.Module):
    """A body and a head, each with batch norm and dropout, and a loose scale."""

    def __init__(self):
        super().__init__()
        parts = {"linear": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4), "drop": nn.Dropout(0.5)}
        self.body = nn.Sequential(OrderedDict(parts))
        self.head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.head(self.body(x))


def closure(net):
    def run():
        net.zero_grad()
        loss = net(torch.linspace(-1, 1, 20).view(5, 4)).square().mean()
        loss.backward()
        return loss

    return run


def two_steps(opt, net, form):
    """Their warnings' texts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            if form == "closure":
                opt.step(closure(net))
                continue
            closure(net)()
            with opt.ascent():
                closure(net)()
            opt.zero_grad()
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("form", ["closure", "two calls"])
@pytest.mark.parametrize("named", ["another", "body"])
def test_what_model_does_not_hold_is_named_once(named, form):
    torch.manual_seed(0)
    net = Net()
    model = {"another": nn.Linear(4, 4), "body": net.body}[named]
    opt = fenland.SSAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1, model=model)
    told = two_steps(opt, net, form)
    assert len(told) == 1, "once, and no second one"
    assert "BatchNorm1d has buffers" in told[0]
    assert "model= does not hold it: give model= the module that holds all parameters of the optimizer" in told[0]
    assert ("draws random numbers" in told[0]) == (form == "two calls"), "a closure's random numbers are all replayed"


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_the_whole_model_and_a_wrapper_around_it_are_silent(form):
    torch.manual_seed(0)

    class Wrapper(nn.Module):
        """The network and a parameter of the loss, as training modules have it."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.inner(x) * self.temperature

    whole = Wrapper(Net())
    for model in (whole, whole.inner):
        opt = fenland.SAM(torch.optim.SGD(whole.parameters(), lr=0.1), rho=0.1, model=model)
        assert two_steps(opt, whole, form) == []
        assert int(whole.inner.head[1].num_batches_tracked) == (2 if model is whole else 4), "counted once a step"


def test_a_joint_step_names_what_one_optimizer_does_not_guard():
    torch.manual_seed(0)
    net = Net()
    opts = [
        fenland.SAM(torch.optim.SGD(net.body.parameters(), lr=0.1), rho=0.1, model=net.body),
        fenland.SAM(torch.optim.SGD(net.head.parameters(), lr=0.1), rho=0.1),
    ]
    with pytest.warns(UserWarning, match="model= does not hold it"):
        fenland.step_together(opts, closure(net))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fenland.step_together(opts, closure(net))
