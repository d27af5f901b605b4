"""Outside a step no hook of fenland's is on all modules: such hooks run in everybody's forward, compiled or not."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland
from module_hooks import any_global_hook

Backward = Callable[[], Tensor]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def closure(opt: Any, backward: Backward) -> None:
    opt.step(lambda: (opt.zero_grad(), backward())[1])


def two_calls(opt: Any, backward: Backward) -> None:
    backward()
    opt.ascend()
    backward()
    opt.descend()


def failing_closure(opt: Any, backward: Backward) -> None:
    calls = []

    def fails_at_the_ascent_point() -> Tensor:
        opt.zero_grad()
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("data")
        return backward()

    with contextlib.suppress(KeyError):
        opt.step(fails_at_the_ascent_point)


def failing_block(opt: Any, backward: Backward) -> None:
    backward()
    with contextlib.suppress(KeyError), opt.ascent():
        raise KeyError("data")


def given_up(opt: Any, backward: Backward) -> None:
    backward()
    opt.ascend()
    opt.restore()


def without_a_second_pass(opt: Any, backward: Backward) -> None:
    backward()
    opt.ascend()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"at w \+ e no parameter")  # said once an optimizer
        opt.descend()


def non_finite(opt: Any, backward: Backward) -> None:
    def spoiled() -> Tensor:
        opt.zero_grad()
        loss = backward()
        opt.param_groups[0]["params"][0].grad.fill_(float("nan"))
        return loss

    opt.step(spoiled)


def micro_batches(opt: Any, backward: Backward) -> None:
    def evaluate() -> Tensor:
        opt.zero_grad()
        return backward()

    opt.step([evaluate, evaluate])


STEPS = [
    closure,
    two_calls,
    failing_closure,
    failing_block,
    given_up,
    without_a_second_pass,
    non_finite,
    micro_batches,
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("preset", ["SAM", "GSAM", "LookSAM"])
def test_before_and_after_a_step_there_is_none(preset, step):
    """Without model=, where fenland looks at modules that nobody named; the optimizers stay alive."""
    net = network()
    x = torch.randn(5, 6)

    def backward() -> Tensor:
        loss = net(x).square().mean()
        loss.backward()
        return loss

    never_stepped = getattr(fenland, preset)(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)
    opt = getattr(fenland, preset)(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)
    assert not any_global_hook()
    for _ in range(2):
        step(opt, backward)
        assert not any_global_hook()
    assert never_stepped.base is not opt.base


def test_an_optimizer_that_is_let_go_of_in_mid_ascent_takes_its_hooks_with_it():
    net = network()
    opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)
    net(torch.randn(5, 6)).sum().backward()
    opt.ascend()
    assert any_global_hook()  # the pass at w + e is about to run: the test can fail
    del opt
    gc.collect()
    assert not any_global_hook()


def test_the_hooks_come_once():
    """They are of the first step with a second pass; later steps run without."""
    net = network()
    opt = fenland.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)
    there = []

    def evaluate() -> Tensor:
        opt.zero_grad()
        there.append(any_global_hook())
        loss = net(torch.ones(2, 6)).sum()
        loss.backward()
        return loss

    for _ in range(2):
        opt.step(evaluate)
    assert there == [False, True, False, False]
