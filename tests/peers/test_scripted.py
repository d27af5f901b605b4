"""TorchScript: torch hooks no scripted module, so its forwards are not seen; its buffers and masks are guarded."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from peer_loops import FORMS, assert_same, counted, loss_of, net, sgd

POINT = 15
# torch 2.13 raises a DeprecationWarning, 2.14 a FutureWarning.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def pair(inside: bool) -> tuple[nn.Module, nn.Module]:
    """The network scripted, whole or its body alone, and an eager copy of it."""
    model = net()
    want = copy.deepcopy(model)
    if not inside:
        return torch.jit.script(model), want
    model.body = torch.jit.script(model.body)
    return model, want


@pytest.mark.parametrize(
    ("form", "inside"), [("closure", False), ("closure", True), ("two calls", True), ("block", True)]
)
@pytest.mark.parametrize("preset", ["SAM", "SSAM", "GSAM"])
def test_a_scripted_module_is_guarded(form, inside, preset):
    model, want = pair(inside)
    opt, reference = (getattr(fenland, preset)(sgd(m), rho=0.2, model=m) for m in (model, want))
    for m, o in ((model, opt), (want, reference)):
        torch.manual_seed(5)
        for t in range(4):
            FORMS[form](o, lambda m=m, t=t: loss_of(m, t))
    assert_same(dict(model.state_dict()), dict(want.state_dict()), 1e-12)
    assert counted(model) == 4


def test_two_calls_of_a_wholly_scripted_model_are_warned_of():
    model, _ = pair(inside=False)
    opt: Any = fenland.SAM(sgd(model), rho=0.2, model=model)
    with pytest.warns(UserWarning, match=r"ascend\(\) has seen no forward of model=.*opt\.step\(closure\)"):
        FORMS["two calls"](opt, lambda: loss_of(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FORMS["two calls"](opt, lambda: loss_of(model))
