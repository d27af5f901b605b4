"""Checkpoints of version 0.1.0 load, and training goes on with the numbers that 0.1.0 went on with."""

from pathlib import Path

import pytest
import torch
from torch import nn

import fenland

FIXTURES = Path(__file__).parents[1] / "fixtures"
WRITTEN, FURTHER = 4, 4  # steps taken before the file was written, and from there to the weights `after`


def friendly_sgd(params):
    return fenland.FriendlySAM(torch.optim.SGD(params, lr=0.05, momentum=0.9), rho=0.1)


def looksam_adamw(params):
    return fenland.LookSAM(torch.optim.AdamW(params, lr=0.01), rho=0.1, k=3, max_norm=5.0)


BUILDS = {"friendly_sgd": friendly_sgd, "looksam_adamw": looksam_adamw}


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def step(model, opt, k):
    draw = torch.Generator().manual_seed(100 + k)
    x, y = (torch.randn(8, n, generator=draw, dtype=torch.float64) for n in (4, 2))

    def closure():
        opt.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    opt.step(closure)


def close(model, weights):
    found = model.state_dict()
    assert found.keys() == weights.keys()
    for name, x in weights.items():
        torch.testing.assert_close(found[name], x, rtol=1e-12, atol=1e-12)


def saved_by_0_1_0(name):
    return torch.load(FIXTURES / f"{name}_0.1.0.pt", weights_only=True)


@pytest.mark.parametrize("name", BUILDS)
def test_training_goes_on_from_the_file(name):
    saved, model = saved_by_0_1_0(name), model_of()
    opt = BUILDS[name](model.parameters())
    model.load_state_dict(saved["weights"])
    opt.load_state_dict(saved["optimizer"])
    for k in range(WRITTEN, WRITTEN + FURTHER):
        step(model, opt, k)
    close(model, saved["after"])


@pytest.mark.parametrize("name", BUILDS)
def test_the_same_steps_write_the_same_file(name):
    """From the start: weights and state; of the groups what does not depend on the version of torch."""
    saved, model = saved_by_0_1_0(name), model_of()
    opt = BUILDS[name](model.parameters())
    for k in range(WRITTEN):
        step(model, opt, k)
    close(model, saved["weights"])
    state = opt.state_dict()
    assert state.keys() == saved["optimizer"].keys()
    _same(state["state"], saved["optimizer"]["state"])
    assert _ours(state) == _ours(saved["optimizer"])


@pytest.mark.parametrize("name", BUILDS)
def test_what_the_method_kept_is_needed(name):
    """Without it training goes elsewhere: the file's vectors are read, not begun anew."""
    saved, model = saved_by_0_1_0(name), model_of()
    opt = BUILDS[name](model.parameters())
    model.load_state_dict(saved["weights"])
    kept = [key for key in saved["optimizer"]["state"][0] if key.startswith("fenland.")]
    assert kept
    for row in saved["optimizer"]["state"].values():
        for key in kept:
            row[key] = torch.zeros_like(row[key]).add_(0.1)
    opt.load_state_dict(saved["optimizer"])
    for k in range(WRITTEN, WRITTEN + FURTHER):
        step(model, opt, k)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        close(model, saved["after"])


def _ours(state):
    """The groups' entries that fenland writes, and those that it reads."""
    wanted = ("lr", "rho", "params")
    return [{k: v for k, v in g.items() if k in wanted or k.startswith("fenland.")} for g in state["param_groups"]]


def _same(found, wanted):
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            _same(found[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            _same(a, b)
    elif isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    else:
        assert found == wanted
