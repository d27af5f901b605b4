"""Slices against closed forms, checkpoints against the losses there, a trajectory's plane, and the model untouched."""

import copy
import random

import numpy as np
import pytest
import torch
from landscape_cases import Bowl, batches, bowl_loss, loss_fn, net
from torch import nn

import fenland
from fenland.diagnostics.landscape import between, random_direction, random_slice, slice_along, trajectory
from fenland.diagnostics.landscape_points import Evaluator

BOWL = [torch.full((2,), 0.5, dtype=torch.float64), torch.full((6,), -0.1, dtype=torch.float64)]
MEAN = (2 * 0.5 - 6 * 0.1) / 8


def bowl_at(w, b):
    """The exact mean loss of `Bowl` over BOWL, by examples."""
    return sum(len(t) * (((w - t.mean()) ** 2).sum() * 2 + (b**2).sum() / 2) for t in BOWL).item() / 8


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("given", ["list", "names"])
def test_slices_of_a_quadratic_are_exact(engine, given):
    model = Bowl()
    d1 = [torch.ones_like(model.w), torch.zeros_like(model.b)]
    d2 = [torch.zeros_like(model.w), torch.arange(3.0, dtype=torch.float64)]
    directions = [d1, d2] if given == "list" else [{"w": d1[0]}, {"b": d2[1]}]
    seen = slice_along(
        model, bowl_loss, BOWL, directions, extent=(-1.0, 2.0), points=5, normalize="none", engine=engine, chunk=7
    )
    wanted = [
        [bowl_at(model.w.detach() + a * d1[0], model.b.detach() + c * d2[1]) for c in seen.axes[1].tolist()]
        for a in seen.axes[0].tolist()
    ]
    torch.testing.assert_close(seen.losses, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)
    assert seen.center == pytest.approx(bowl_at(model.w.detach(), model.b.detach()), rel=1e-12)
    assert (seen.engine, seen.bn, seen.examples) == (engine, "none", 8)


def test_unit_directions_measure_curvature():
    """Along an eigenvector of the Hessian, in units of w, the second difference is its eigenvalue: 4 for w, 1 for b."""
    model = Bowl()
    for direction, eigenvalue in (({"w": torch.rand(2, 3).double()}, 4.0), ({"b": torch.rand(3).double()}, 1.0)):
        seen = slice_along(model, bowl_loss, BOWL, [direction], extent=0.1, points=3)
        low, middle, high = seen.losses.tolist()
        assert (low - 2 * middle + high) / 0.1**2 == pytest.approx(eigenvalue, rel=1e-9)


def test_along_the_hessians_own_eigenvectors():
    """What `curvature` finds is taken as it is: the second difference along it is its eigenvalue."""
    pytest.importorskip("scipy")
    from fenland.diagnostics.curvature import extreme_eigenvalues

    model, data = net().double(), [(x.double(), y) for x, y in batches()]
    pair = extreme_eigenvalues(model, loss_fn, data, which="largest", vectors=True, tol=1e-4).largest[0]
    seen = slice_along(model, loss_fn, data, [pair.vector], extent=1e-3, points=3, labels=["steepest"])
    low, middle, high = seen.losses.tolist()
    assert (low - 2 * middle + high) / 1e-6 == pytest.approx(pair.value, rel=1e-3)
    assert seen.labels == ("steepest",)


def test_filter_normalisation_gives_each_filter_its_norm():
    model = net(conv=True)
    drawn = random_direction(model, seed=3)
    for name, p in model.named_parameters():
        if p.dim() < 2:
            assert not drawn[name].any()
            continue
        for d, w in zip(drawn[name], p, strict=True):
            assert d.norm().item() == pytest.approx(w.norm().item(), rel=1e-5)
    assert not torch.equal(drawn["1.weight"], random_direction(model, seed=4)["1.weight"])
    unit = random_direction(model, normalize="unit")
    assert sum(d.square().sum().item() for d in unit.values()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bn", ["eval", "batch", "recalibrate"])
def test_between_checkpoints_ends_at_their_losses(bn):
    one, two = net(bn=True, seed=1), net(bn=True, seed=2)
    data = batches()
    for model in (one, two):
        for x, _ in data:
            model.train()(x)  # running statistics of its own
    seen = between(net(bn=True), loss_fn, data, one.state_dict(), two.state_dict(), points=5, bn=bn)
    for model, measured in ((one, seen.losses[0]), (two, seen.losses[-1])):
        assert measured.item() == pytest.approx(by_hand(model, data, bn), rel=1e-5)
    assert seen.center == pytest.approx(seen.losses[0].item())
    assert seen.bn == bn
    beyond = between(net(bn=True), loss_fn, data, one.state_dict(), two.state_dict(), extent=(-3.0, 4.0), bn=bn)
    assert bool(torch.isfinite(beyond.losses).all())  # running variances are not taken below 0


def by_hand(model, data, bn):
    """The mean loss, with BN as `bn` says, in plain code."""
    model = copy.deepcopy(model).eval()
    norm = next(m for m in model if isinstance(m, nn.BatchNorm1d))
    if bn == "recalibrate":
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
        with torch.no_grad():
            for x, _ in data:
                model(x)
        norm.eval()
    norm.training = bn == "batch"
    with torch.no_grad():
        return sum(len(y) * loss_fn(model, (x, y)).item() for x, y in data) / sum(len(y) for _, y in data)


def test_a_known_plane_explains_all():
    base, a, b = (net(seed=k).state_dict() for k in range(3))
    marks = [(3.0, 0.0), (1.0, 2.0), (0.5, -0.5), (0.0, 0.0)]
    states = [{k: base[k] + p * a[k] + q * b[k] for k in base} for p, q in marks]
    seen = trajectory(net(), loss_fn, batches(), states, points=3)
    assert float(seen.explained.sum()) == pytest.approx(1.0, abs=1e-6)
    assert seen.path.shape == (4, 2)
    assert not seen.path[-1].any()
    for i in range(4):  # in a plane nothing is lost: distances are those of the weights
        far = sum((states[i][k] - states[-1][k]).double().square().sum().item() for k in base) ** 0.5
        assert seen.path[i].norm().item() == pytest.approx(far, rel=1e-5)
    last = net()
    last.load_state_dict(states[-1])
    assert seen.center == pytest.approx(by_hand_plain(last, batches()), rel=1e-5)


def by_hand_plain(model, data):
    model.eval()
    with torch.no_grad():
        return sum(len(y) * loss_fn(model, (x, y)).item() for x, y in data) / sum(len(y) for _, y in data)


def test_two_components_of_three_leave_a_part_unexplained():
    base = {k: torch.zeros_like(v) for k, v in net().state_dict().items()}
    states = []
    for k, length in enumerate((3.0, 2.0, 1.0)):
        for sign in (1, -1):
            state = copy.deepcopy(base)
            state["0.weight"].view(-1)[k] = sign * length
            states.append(state)
    seen = trajectory(net(), loss_fn, batches(), states, points=2)
    assert seen.explained.tolist() == pytest.approx([9 / 14, 4 / 14])


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_both_engines_agree(engine, bn):
    model, data = net(conv=True), batches()
    for x, _ in data:
        model.train()(x)
    seen = random_slice(model, loss_fn, data, dims=1, points=5, engine=engine, bn=bn)
    plain = random_slice(model, loss_fn, data, dims=1, points=5, engine="loop", chunk=1, bn=bn)
    torch.testing.assert_close(seen.losses, plain.losses, rtol=1e-5, atol=0)
    assert seen.engine == engine


def broken(model, batch):
    loss_fn(model, batch)
    raise RuntimeError("broken")


@pytest.mark.parametrize("bn", ["eval", "batch", "recalibrate"])
@pytest.mark.parametrize("loss", [loss_fn, broken])
def test_nothing_is_touched(bn, loss):
    """Weights, buffers, gradients, modes, BN momenta, the generator, and a fenland optimizer that watches the model."""
    model = net(bn=True).train()
    model[1].momentum = 0.3
    model[0].eval()
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05, model=model)
    loss_fn(model, batches()[0]).backward()
    before, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    held = [(id(p), p._version) for p in model.parameters()]
    modes, rng = [m.training for m in model.modules()], torch.get_rng_state()
    if loss is broken:
        with pytest.raises(RuntimeError, match="broken"):
            random_slice(model, broken, batches(), points=3, bn=bn)
    else:
        random_slice(model, loss_fn, batches(), points=3, bn=bn)
    assert all(torch.equal(x, before[k]) for k, x in model.state_dict().items())
    assert [(id(p), p._version) for p in model.parameters()] == held
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert [m.training for m in model.modules()] == modes
    assert model[1].momentum == 0.3
    assert torch.equal(torch.get_rng_state(), rng)
    opt.zero_grad()


def test_a_model_that_vmap_cannot_run_falls_back():
    def reads(model, batch):
        loss = loss_fn(model, batch)
        return loss if loss.item() >= 0 else -loss

    assert random_slice(net(), reads, batches(), dims=1, points=3).engine == "loop"
    assert random_slice(net(), loss_fn, batches(), dims=1, points=3).engine == "vmap"
    with pytest.raises(ValueError, match=r"torch\.func\.vmap"):
        random_slice(net(), reads, batches(), dims=1, points=3, engine="vmap")


def test_points_that_do_not_fit_into_memory_go_in_halves(monkeypatch):
    plain, sizes, run = random_slice(net(), loss_fn, batches(), dims=1, points=9), [], Evaluator._at_once

    def small(self, places, batch):
        if len(places) > 3:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(places))
        return run(self, places, batch)

    monkeypatch.setattr(Evaluator, "_at_once", small)
    seen = random_slice(net(), loss_fn, batches(), dims=1, points=9)
    torch.testing.assert_close(seen.losses, plain.losses, rtol=1e-6, atol=0)
    assert seen.engine == "vmap"
    assert max(sizes) <= 3


def test_tied_weights_move_together():
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    model[2].weight = model[0].weight
    other = {k: v + 0.1 for k, v in model.state_dict().items()}
    seen = between(model, loss_fn, batches(), model.state_dict(), other, points=3)
    moved = copy.deepcopy(model)
    moved.load_state_dict(other)
    assert moved[2].weight is moved[0].weight
    assert seen.losses[-1].item() == pytest.approx(by_hand_plain(moved, batches()), rel=1e-6)


def test_wrong_arguments_are_named():
    model, data, state = net(bn=True), batches(), net(bn=True).state_dict()
    other = {k: v for k, v in state.items() if k != "0.bias"}
    odd = {k: v.half() if k == "0.bias" else v for k, v in state.items()}
    cases = [
        (ValueError, "batches: there is none", lambda: random_slice(model, loss_fn, [])),
        (TypeError, "one-shot", lambda: random_slice(model, loss_fn, iter(data))),
        (TypeError, "loss_fn returned a float", lambda: random_slice(model, lambda m, b: 1.0, data)),
        (ValueError, "one number", lambda: random_slice(model, lambda m, b: m(b[0]), data)),
        (ValueError, "dims = 3", lambda: random_slice(model, loss_fn, data, dims=3)),
        (ValueError, "extent", lambda: random_slice(model, loss_fn, data, extent=-1.0)),
        (ValueError, "bn = 'none'", lambda: random_slice(model, loss_fn, data, bn="none")),
        (TypeError, "color: no such argument", lambda: random_slice(model, loss_fn, data, color=1)),
        (ValueError, "lacks '0.bias'", lambda: between(model, loss_fn, data, state, other)),
        (TypeError, "float16", lambda: between(model, loss_fn, data, odd, state)),
        (TypeError, "state dict", lambda: between(model, loss_fn, data, "a.pt", state)),
        (ValueError, "need at least 3", lambda: trajectory(model, loss_fn, data, [state, state])),
        (ValueError, "fewer than 2 directions", lambda: trajectory(model, loss_fn, data, [state] * 4)),
        (ValueError, "2 tensors for", lambda: slice_along(model, loss_fn, data, [[torch.ones(1)] * 2])),
        (ValueError, "'x' is no parameter", lambda: slice_along(model, loss_fn, data, [{"x": torch.ones(1)}])),
        (ValueError, "zero everywhere", lambda: slice_along(model, loss_fn, data, [{"0.bias": torch.zeros(16)}])),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()


def test_a_loss_may_take_gradients_to_its_inputs():
    """As an equation's residual does, or a gradient penalty."""

    def residual(net, batch):
        t = batch.clone().requires_grad_()
        u = net(t)
        (du,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        return (du + u).square().mean()

    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), [torch.rand(9, 1)]
    seen = random_slice(model, residual, data, dims=1, points=3)
    assert seen.center == fenland.sharpness(model, residual, data).loss
    assert float(seen.losses[1]) == seen.center


def test_every_point_draws_the_same_random_numbers():
    def noisy(net, batch):
        drawn = np.random.random() + random.random() + float(torch.rand(1)) + float(net.own.random())  # noqa: NPY002
        return net(batch).square().mean() * 0 + drawn

    model = nn.Linear(3, 2)
    model.own = np.random.default_rng(0)
    seen = random_slice(model, noisy, [torch.ones(4, 3)] * 2, points=3, engine="loop")
    assert len(set(seen.losses.flatten().tolist())) == 1
