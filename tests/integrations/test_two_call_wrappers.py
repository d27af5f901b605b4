"""The two-call form through Fabric's wrapper: a scheduler on the fenland optimizer sees its steps."""

from __future__ import annotations

import pytest
import torch

import fenland

fabric = pytest.importorskip("lightning.fabric")


def test_a_scheduler_sees_the_steps_of_a_wrapped_optimizer():
    lone = fabric.Fabric(accelerator="cpu", devices=1)
    net = torch.nn.Linear(4, 2)
    opt = fenland.SSAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1, model=net)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
    wrapped, handle = lone.setup(net, opt)
    for _ in range(2):
        handle.zero_grad()
        lone.backward(wrapped(torch.ones(3, 4)).square().mean())
        with handle.ascent():
            lone.backward(wrapped(torch.ones(3, 4)).square().mean())
        scheduler.step()  # warnings are errors: torch warns where it has seen no step of the optimizer
    assert opt.param_groups[0]["lr"] == 0.025
