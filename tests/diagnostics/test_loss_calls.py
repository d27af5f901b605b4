"""A loss function that cannot be called as loss_fn(model, batch) is named before anything runs; its own errors stay."""

import functools

import nets
import pytest
import torch
import torch.nn.functional as F
from measurements import DATA, EVERY, model
from torch import nn

from fenland.diagnostics.calls import check_loss_fn


def of_three(model, x, y):
    return F.cross_entropy(model(x), y)


class Keyword(nn.Module):
    def forward(self, model, *, batch):
        return model(batch[0]).mean()


WRONG = {
    "one": (lambda batch: batch, r"<lambda>\(batch\).*too many positional"),
    "three": (of_three, r"of_three\(model, x, y\).*missing a required argument: 'y'"),
    "keyword": (Keyword(), r"Keyword\(model, \*, batch\)"),
    "criterion": (nn.CrossEntropyLoss(), "CrossEntropyLoss: is a criterion of outputs and targets"),
    "functional": (F.mse_loss, "mse_loss: is a criterion"),
    "class": (nn.CrossEntropyLoss, "must be callable as"),
    "nothing": (None, "loss_fn = None: must be callable"),
}


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case, call):
    loss_fn, match = WRONG[case]
    net = model()
    before = nets.state(net)
    with pytest.raises(TypeError, match=match):
        call(net, loss_fn, DATA)
    assert nets.same(before, nets.state(net))


class Bound:
    def loss(self, model, batch):
        return model(batch)

    def __call__(self, model, batch, reduction="mean"):
        return model(batch)


class Module(nn.Module):
    def forward(self, model, batch):
        return model(batch)


@pytest.mark.parametrize(
    "good",
    [
        lambda *args: args,
        lambda model, batch, weight=1.0: batch,
        functools.partial(of_three, y=None),
        Bound(),
        Bound().loss,
        Module(),
        torch.compile(Module(), backend="eager"),
        torch.compile(lambda model, batch: model(batch), backend="eager"),
    ],
)
def test_everything_that_takes_model_and_batch_is_right(good):
    check_loss_fn(good)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_an_error_of_the_loss_itself_is_as_it_was(call):
    def wrong_inside(model, batch):
        return of_three(model, batch)

    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'y'") as caught:
        call(model(), wrong_inside, DATA)
    assert caught.traceback[-1].name == "wrong_inside"
