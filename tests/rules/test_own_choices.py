"""Choices that a user writes: the abstract types are enough to add any of them, and a radius."""

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from torch import nn

import fenland
from fenland.algebra import Lazy, Leaf, Lists


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

    def steepest(self, a, s):
        return a * (0.5 / a.norm)


def test_a_ball_of_one_s_own_decides_where_h_is_taken():
    _, _, (here, there) = _stepped(rho=1.0, ball=Half())
    torch.testing.assert_close(there - here, torch.tensor([0.3, 0.4], dtype=torch.float64))


def test_steepest_of_l2_has_unit_length():
    found = fenland.L2().steepest(Leaf([torch.tensor([3.0, 4.0])], Lists()), fenland.Context())
    assert isinstance(found, Lazy)
    torch.testing.assert_close(found.tensors[0], torch.tensor([0.6, 0.8]))


@dataclass(frozen=True)
class Mean(fenland.Combine):
    """d = (g + h) / 2."""

    def __call__(self, g, h):
        return g * 0.5 + h * 0.5


@dataclass(frozen=True)
class Undeclared(Mean):
    """The same, but it says that h alone is enough."""

    reads = frozenset()


def test_a_combine_of_one_s_own_decides_what_the_base_gets():
    w, _, (here, there) = _stepped(rho=1.0, combine=Mean())  # the loss's gradient is w itself
    torch.testing.assert_close(w, here - 0.5 * (here + there) / 2)


def test_a_combine_that_reads_more_than_it_says_is_an_error():
    with pytest.raises(RuntimeError, match="keep=g"):
        _stepped(rho=1.0, combine=Undeclared())


@dataclass(frozen=True)
class Sum(fenland.Source):
    """a = the sum of all gradients so far."""

    keeps = ("sum",)

    def vector(self, g, s):
        return s.put("sum", g if all(s.fresh("sum", g)) else s.get("sum", g) + g)


def test_a_source_of_one_s_own_remembers():
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    opt = fenland.SharpnessAware(torch.optim.SGD([w], lr=1.0), 1.0, source=Sum())
    fields, points = [torch.tensor([5.0, 0.0]), torch.tensor([0.0, 12.0])], []

    def closure():
        points.append(w.detach().clone())
        w.grad = field.double()
        return torch.zeros(())

    for field in fields:  # noqa: B007 - the closure reads it
        opt.step(closure)
    torch.testing.assert_close(points[1] - points[0], torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(points[3] - points[2], torch.tensor([5.0, 12.0], dtype=torch.float64) / 13)
    assert [x.tolist() for x in opt._memory.kept[w].values()] == [[5.0, 12.0]]


@dataclass(frozen=True)
class Extragradient(fenland.Method):
    """h at w + e, and again at the point that a step along h leads to; d = that gradient."""

    evaluations = 3

    def step(self, s):
        g = yield fenland.Grad()
        if not s.due(g):
            yield fenland.Update(g)
            return
        h = yield fenland.Grad(at=s.climb(g))
        yield fenland.Update((yield fenland.Grad(at=s.climb(h), final=True)))


def test_a_method_of_one_s_own_asks_for_as_many_gradients_as_it_says():
    w, opt, (here, up, further) = _stepped(rho=1.0, method=Extragradient())
    torch.testing.assert_close(up - here, here / here.norm())
    torch.testing.assert_close(further - here, up / up.norm())
    torch.testing.assert_close(w, here - 0.5 * further)
    with pytest.raises(RuntimeError, match=r"step\(closure\)"):
        opt.ascend()


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
