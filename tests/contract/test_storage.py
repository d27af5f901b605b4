"""What was found out about the parameters at one step is not believed at the next where it has changed.

Every test trains with storage moves first, changes one thing, and asks that the next step goes in place (or leaves the
thing alone), with the weights that a run without any move ends at.
"""

import pytest
import torch
from torch import nn
from torch.optim import SGD

import fenland
from fenland.step.perturbation import ALIASED, BUCKET_VIEW, OWNED, holdings

PRESETS = [fenland.SAM, fenland.SSAM, fenland.ASAM, fenland.FisherSAM, fenland.GSAM]
every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.__name__)


class Training:
    """f = sum of fourth powers over four tensors; `at` holds their addresses at every gradient."""

    def __init__(self, preset, perturb="auto", **options):
        draw = torch.Generator().manual_seed(3)
        self.params = [
            nn.Parameter(torch.randn(s, generator=draw, dtype=torch.float64)) for s in ((4, 4), (3,), (2, 5))
        ]
        self.opt = preset(SGD(self.params, lr=0.05, momentum=0.9), rho=0.1, perturb=perturb, **options)
        self.at, self.keep = [], None

    def closure(self):
        self.at.append([p.data_ptr() for p in self.params])
        for p in self.params:
            p.grad = p.detach() ** 3
        if self.keep is not None:
            self.keep(self.params)
        return torch.zeros(())

    def step(self):
        self.opt.step(self.closure)
        return [a != b for a, b in zip(*self.at[-2:], strict=True)]

    @property
    def weights(self):
        return [p.detach().clone() for p in self.params]


def compare(training, preset, steps):
    reference = Training(preset, perturb="inplace")
    for _ in range(steps):
        reference.step()
    for a, b in zip(training.weights, reference.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@every_preset
def test_it_moves_at_every_step(preset):
    training = Training(preset)
    assert [training.step() for _ in range(3)] == [[True] * 3] * 3
    compare(training, preset, 3)


@every_preset
@pytest.mark.parametrize("alias", ["detached", "view", "numpy", "storage"])
def test_an_alias_that_appears_later(preset, alias):
    training = Training(preset)
    training.step()
    p = training.params[0].detach()
    held = {"detached": lambda: p, "view": lambda: p[0], "numpy": p.numpy, "storage": lambda: p.untyped_storage()}[
        alias
    ]()
    if alias != "detached":
        del p
    assert training.step() == [False, True, True] or alias == "storage"  # the Python object of a storage is no user
    if alias == "view":
        assert torch.equal(held, training.params[0].detach()[0])  # it sees the new weights
    del held
    p = None
    assert training.step() == [True] * 3
    compare(training, preset, 3)


@every_preset
def test_memory_that_is_shared_later(preset):
    training = Training(preset)
    training.step()
    training.params[1].detach().share_memory_()
    assert training.step() == [True, False, True]
    assert training.params[1].is_shared()
    compare(training, preset, 2)


@every_preset
def test_a_parameter_that_becomes_a_view_of_a_larger_storage_later(preset):
    training = Training(preset)
    training.step()
    flat = torch.zeros(20, dtype=torch.float64)
    with torch.no_grad():
        flat[4:20].copy_(training.params[0].view(-1))
        training.params[0].data = flat[4:20].view(4, 4)
    del flat
    assert training.step() == [False, True, True]
    compare(training, preset, 2)


@every_preset
def test_a_parameter_in_other_memory_later(preset):
    """`model.to(...)`, a loaded checkpoint: moved as before, from where it is now."""
    training = Training(preset)
    training.step()
    for p in training.params:
        p.data = p.data.clone()
    assert training.step() == [True] * 3
    compare(training, preset, 2)


@every_preset
def test_a_parameter_that_joins_later(preset):
    training = Training(preset)
    training.step()
    more = nn.Parameter(torch.ones(2, dtype=torch.float64))
    training.opt.add_param_group({"params": [more]})
    training.params.append(more)
    assert training.step() == [True] * 4
    assert not torch.equal(more.detach(), torch.ones(2, dtype=torch.float64))


@every_preset
@pytest.mark.parametrize("how", ["the tensor", "a view"])
def test_a_gradient_that_is_held_later_stays_what_it_was(preset, how):
    training = Training(preset)
    training.step()
    held = []

    def keep(params):
        g = params[0].grad
        held.append((g if how == "the tensor" else g.view(-1), g.clone()))

    training.keep = keep
    training.step()
    for kept, value in held:
        assert torch.equal(kept.view(-1), value.view(-1))
    compare(training, preset, 2)


@every_preset
def test_square_weights_that_are_transposed_later_keep_their_strides(preset):
    """Same memory, same size, other strides: a gradient in the old ones must not become the weight."""
    training = Training(preset)
    training.step()
    p = training.params[0]
    p.data = p.data.t()
    seen = []
    training.keep = lambda params: seen.append(params[0].stride())
    training.step()
    assert p.stride() == (1, 4) == seen[0]
    compare_transposed = Training(preset, perturb="inplace")
    for _ in range(2):
        compare_transposed.step()
    assert p.shape == (4, 4)


def test_who_holds_a_gradient():
    p, q, r = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    for x in (p, q, r):
        x.grad = torch.zeros(3)
    assert holdings([x.grad for x in (p, q, r)], sharded=False) == [OWNED] * 3
    kept = q.grad
    r.grad = torch.zeros(6)[:3]
    assert holdings([x.grad for x in (p, q, r)], sharded=False) == [OWNED, ALIASED, BUCKET_VIEW]
    del kept
    r.grad = None
    assert holdings([x.grad for x in (p, q)], sharded=False) == [OWNED] * 2


@every_preset
@pytest.mark.parametrize("lr", [0.0, 0.05])
def test_offloaded_weights_come_back_bit_by_bit(preset, lr):
    """The saved w waits in the host's memory; the same numbers as where it is saved beside."""
    runs = []
    for perturb in ("offload", "inplace"):
        training = Training(preset, perturb=perturb)
        for group in training.opt.param_groups:
            group["lr"] = lr
        start = training.weights
        assert [training.step() for _ in range(3)] == [[False] * 3] * 3
        runs.append(training.weights)
        assert lr or all(torch.equal(a, b) for a, b in zip(start, training.weights, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_an_ascent_that_is_given_up_restores_offloaded_weights():
    training = Training(fenland.SAM, perturb="offload")
    start = training.weights
    training.closure()
    training.opt.ascend()
    assert not torch.equal(training.params[0], start[0])
    training.opt.restore()
    assert all(torch.equal(a, b) for a, b in zip(start, training.weights, strict=True))
