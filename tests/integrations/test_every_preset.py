"""Every preset through the adapters, with several micro-batches a step, against the plain loop."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import fenland
from fenland.integrations.replay import Replay
from fenland.presets import PRESETS
from kinds import of_each_kind
from trainer_cases import assert_close, batches, loss_fn, net, plain_loop, seed

NEEDED: dict[str, dict[str, Any]] = {"DNSAM": {"full_norm": lambda: 1.0}, "AESAM": {"total_steps": 3}}


def build(name: str, model: nn.Module) -> Any:
    torch.manual_seed(1)
    base = torch.optim.SGD(model.named_parameters(), lr=0.05, momentum=0.9)
    return PRESETS[name].build(base, rho=0.05, model=model, **NEEDED.get(name, {}))


def rules(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script")  # geoopt, on import
        return build(name, net()).rules


def trainer_loop(model: nn.Module, opt: Any, k: int, live: bool, micro: bool) -> None:
    """What the adapters do. `live`: the last micro-batch's pass 1 runs inside the step, as under Lightning."""
    replay = Replay(opt, "micro" if micro else "whole")

    def run(i: int) -> torch.Tensor:
        loss = loss_fn(model, *batches()[i]) / k
        loss.backward()
        return loss.detach()

    def first(i: int) -> None:
        seed(i)
        held = replay.note(lambda last: run(i))
        held.loss = run(i)

    for start in range(0, 6, k):
        opt.zero_grad()
        rows = range(start, start + k)
        for i in rows[:-1] if live else rows:
            first(i)
        value = replay.step(lambda i=rows[-1]: first(i)) if live else replay.step()
        assert value is not None
        assert not replay.held


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # geoopt, on import
@pytest.mark.parametrize("micro", [False, True])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "name", of_each_kind((p.name for p in PRESETS.values()), lambda name: build(name, net()).rules)
)
def test_a_preset_steps_as_in_the_plain_loop(name, live, micro):
    model, other = net(), net()
    opt, reference = build(name, model), build(name, other)
    if opt.rules.method.per_sample:
        with pytest.raises(ValueError, match="needs the losses of single samples"):
            Replay(opt)
        return
    if micro and "WSAM" in name:
        pytest.skip("decoupled WSAM takes one closure")
    k = 2 if name == "ZSharp" else 3  # ZSharp's mask is a threshold: only exact shares of the loss leave it as it is
    trainer_loop(model, opt, k, live, micro)
    plain_loop(other, reference, accumulate=k, micro=micro)
    assert_close(model, other)
    assert isinstance(opt, fenland.SharpnessAware)
