"""Which methods wait for the slow tier: those that declare what another one before them does."""

import pytest
import torch

import fenland
from kinds import kind, of_each_kind

BUILT = {
    "sgd": lambda base: base,
    "SAM": fenland.SAM,
    "USAM": fenland.USAM,  # another ball
    "GSAM": fenland.GSAM,  # keeps g
    "VaSSO": fenland.VaSSO,  # keeps a vector between steps
    "MSAM": fenland.MSAM,  # no gradient at w
    "RST": fenland.RST,  # another when
    "SSAM": fenland.SSAM,
}


def rules_of(name):
    base = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    return getattr(BUILT[name](base), "rules", None)


def test_the_first_of_each_kind_is_fast_and_none_is_lost():
    params = of_each_kind(BUILT, rules_of)
    assert [param.values[0] for param in params] == list(BUILT)
    assert [param.values[0] for param in params if param.marks] == ["USAM"]
    assert {mark.name for param in params for mark in param.marks} == {"slow"}


@pytest.mark.parametrize("name", ["GSAM", "VaSSO", "MSAM", "RST", "SSAM"])
def test_what_the_engine_is_told_makes_the_kind(name):
    assert kind(rules_of(name)) != kind(rules_of("SAM"))
