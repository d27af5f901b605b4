"""A number that the parameters' dtype cannot hold is refused before anything moves, whichever rule it belongs to."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from fenland.presets import PRESETS

NEEDED: dict[str, dict[str, Any]] = {
    "DNSAM": {"full_norm": lambda: 1.0},
    "AESAM": {"total_steps": 10},
    "XSAM": {"grid": (0.0, 1.0)},  # rho_max belongs to the search
}
LARGEST = {torch.float16: 65504.0, torch.bfloat16: 3.38e38, torch.float32: 3.4e38}


def real_numbers() -> list[tuple[str, str]]:
    """(preset, argument) of every real number, rho among them, that a preset takes."""
    found = []
    for name, row in sorted(PRESETS.items()):
        arguments = inspect.signature(row.build).parameters.items()
        found += [(name, a) for a, p in arguments if a == "rho" or isinstance(p.default, float)]
    return found


def parts(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_the_presets_have_such_numbers():
    found = real_numbers()
    assert {("SAM", "rho"), ("ASAM", "eta"), ("GSAM", "alpha"), ("LESAM", "sigma"), ("XSAM", "rho_max")} <= set(found)
    assert len(found) > len(PRESETS)


@pytest.mark.parametrize("value", [1e300, 10**400], ids=["1e300", "10**400"])
@pytest.mark.parametrize(("preset", "argument"), real_numbers())
def test_a_number_that_float32_cannot_hold_is_refused_at_construction(preset, argument, value):
    model, base = parts()
    groups = [dict(group) for group in base.param_groups]
    with pytest.raises(ValueError, match=argument) as caught:
        PRESETS[preset].build(base, **{"model": model, **NEEDED.get(preset, {}), argument: value})
    assert repr(value) in str(caught.value)
    assert base.param_groups == groups, "nothing was written into the base"


@pytest.mark.parametrize("dtype", LARGEST, ids=str)
def test_the_message_names_number_dtype_and_cure(dtype):
    model, base = parts(dtype)
    value = 1.01 * LARGEST[dtype]
    with pytest.raises(ValueError, match=r"rho = .*parameters are .*wider dtype") as caught:
        fenland.SAM(base, rho=value, model=model)
    assert str(dtype).removeprefix("torch.") in str(caught.value)
    fenland.SAM(base, rho=0.99 * LARGEST[dtype], model=model)  # held


def test_float64_holds_them():
    model, base = parts(torch.float64)
    fenland.ASAM(base, rho=1e300, eta=1e300, model=model)


@pytest.mark.parametrize("where", ["group", "callable", "schedule", "added group", "set", "set in the group", "half"])
def test_wherever_a_radius_comes_from(where):
    """The optimizer and the weights are as before, and a right step follows."""
    model, base = parts()
    opt: Any = None
    extra = nn.Parameter(torch.ones(2, dtype=torch.float16))

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = model(torch.ones(5, 3, dtype=next(model.parameters()).dtype)).square().mean()
        loss.backward()
        return loss

    def run() -> None:
        nonlocal opt
        if where == "group":
            base.param_groups[0]["rho"] = 1e300
        opt = fenland.SAM(base, rho=0.1, model=model) if where not in ("callable", "schedule") else None
        if where == "callable":
            opt = fenland.SAM(base, rho=lambda t: 0.1 if t == 0 else 1e300, model=model)
            opt.step(closure)
            opt.step(closure)
        elif where == "schedule":
            fenland.SAM(base, rho=fenland.Cosine(1e300, 0.0, 5), model=model)
        elif where == "added group":
            opt.add_param_group({"params": [extra], "rho": 1e5})
        elif where == "set":
            opt.rho = 1e300
        elif where == "set in the group":
            opt.param_groups[0]["rho"] = 1e300
            opt.step(closure)
        elif where == "half":
            opt.rho = 1e5
            model.half()
            opt.step(closure)

    before = {k: v.clone() for k, v in model.state_dict().items()} if where != "callable" else None
    with pytest.raises(ValueError, match=r"rho.* = 1.*holds numbers up to"):
        run()
    if before is not None:
        assert all(torch.equal(v, before[k].to(v.dtype)) for k, v in model.state_dict().items())
    if where in ("added group", "set"):
        assert [group["rho"] for group in opt.param_groups] == [0.1]
    if opt is not None:
        opt.param_groups[0]["rho"] = 0.1
        if where != "callable":
            assert float(opt.step(closure).detach()) > 0


def test_a_number_that_vanishes_in_the_dtype_is_none_of_these():
    """A schedule may fall to nothing."""
    model, base = parts()
    fenland.SAM(base, rho=1e-60, model=model)
    fenland.LpSAM(base, rho=0.1, p=float("inf"), model=model)
