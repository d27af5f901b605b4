"""Choices that a user writes: the abstract types are enough to add a ball, a when and a radius."""

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from torch import nn

import fenland
from fenland.algebra import Lists


def _stepped(lr: float = 0.5, **options) -> tuple[torch.Tensor, fenland.SharpnessAware, list[torch.Tensor]]:
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    opt = fenland.SharpnessAware(torch.optim.SGD([w], lr=lr), **options)
    seen = []

    def closure():
        seen.append(w.detach().clone())
        opt.zero_grad()
        loss = 0.5 * w.square().sum()
        loss.backward()
        return loss

    opt.step(closure)
    return w.detach(), opt, seen


@dataclass(frozen=True)
class Half(fenland.Ball):
    """Half of SAM's perturbation."""

    def steepest(self, a, w, at):
        return fenland.Steepest(direction=a, scale=0.5 / at.V.norm(a))


def test_a_ball_of_one_s_own_decides_where_h_is_taken():
    _, _, (here, there) = _stepped(rho=1.0, ball=Half())
    torch.testing.assert_close(there - here, torch.tensor([0.3, 0.4], dtype=torch.float64))


def test_steepest_of_l2_has_unit_length():
    found = fenland.L2().steepest([torch.tensor([3.0, 4.0])], [], fenland.At(Lists()))
    assert isinstance(found, fenland.Steepest)
    torch.testing.assert_close(found.scale * found.direction[0], torch.tensor([0.6, 0.8]))


@dataclass(frozen=True)
class Never(fenland.When):
    """No ascent."""

    def ascends(self, step, grad_norm, memory):
        return False


def test_a_when_of_one_s_own_decides_how_often_the_closure_runs():
    w, _, seen = _stepped(rho=1.0, when=Never())
    assert len(seen) == 1
    torch.testing.assert_close(w, torch.tensor([1.5, 2.0], dtype=torch.float64))  # the base's own step


class Tenth(fenland.LearningRateTied):
    """rho = lr / 10."""

    def at(self, lr):
        return lr / 10


def test_a_radius_tied_to_the_learning_rate_follows_its_group():
    _, opt, (here, there) = _stepped(lr=0.5, rho=Tenth())
    assert opt.param_groups[0]["rho"] == pytest.approx(0.05)
    assert float((there - here).norm()) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="follows the learning rate"):
        Tenth()(0)


def test_norm_layers_are_what_sam_on_perturbs():
    for layer in (nn.BatchNorm2d(2), nn.SyncBatchNorm(2), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2)):
        assert isinstance(layer, fenland.NORM_LAYERS)
    assert not isinstance(nn.Linear(2, 2), fenland.NORM_LAYERS)


def test_a_row_of_the_table_is_a_frozen_preset_that_builds():
    for row in fenland.PRESETS.values():
        assert isinstance(row, fenland.Preset)
        assert row.equation in row.text
    with pytest.raises(FrozenInstanceError):
        fenland.PRESETS["SAM"].name = "another"
    w = nn.Parameter(torch.ones(2))
    assert isinstance(fenland.PRESETS["GSAM"].build(torch.optim.SGD([w], lr=0.1)), fenland.SharpnessAware)
