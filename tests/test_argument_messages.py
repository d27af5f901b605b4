"""Messages of wrong arguments name the argument and its value in one line."""

import pytest
import torch

import fenland
from fenland.arguments import check_among, check_positive


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def message(wrong):
    with pytest.raises((TypeError, ValueError)) as caught:
        wrong()
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (lambda: fenland.SAM(sgd(), rho=0.1, model=sgd()), "model = <SGD>: must be a Module"),
        (lambda: fenland.SAM(sgd(), rho=0.1, model="net"), "model = 'net': must be a Module"),
        (lambda: check_positive("rho", torch.zeros(50)), "rho = <Tensor>: must be a number > 0"),
        (lambda: check_positive("rho", -1), "rho = -1: must be finite and > 0"),
        (lambda: check_among("sync", ["global"] * 20, ("global", "local")), "sync = <list>: must be one of"),
        (lambda: check_among("sync", "all", ("global", "local")), "sync = 'all': must be one of"),
    ],
)
def test_a_value_that_takes_lines_is_named_by_its_type(wrong, shown):
    told = message(wrong)
    assert told.startswith(shown)
    assert "\n" not in told
