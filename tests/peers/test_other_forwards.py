"""Whatever else runs the model between steps, the two-call form stays the closure form's equal, bit for bit.

Each interlude runs in both forms at the same moments; what it does itself to buffers and generators is its own affair.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import fenland
from peer_loops import BATCH, FORMS, Net, assert_same, batch, counted, loss_of, net, ssam

POINT = 3
STEPS = 5


def evaluate(model: nn.Module, opt: Any) -> None:
    model.eval()
    with torch.no_grad():
        model(batch(1)[0])
    model.train()


def evaluate_with_gradients(model: nn.Module, opt: Any) -> None:
    model.eval()
    model(batch(1)[0])
    model.train()


def forward_without_gradients(model: nn.Module, opt: Any) -> None:
    with torch.no_grad():
        model(batch(1)[0])


def inference(model: nn.Module, opt: Any) -> None:
    model.eval()
    with torch.inference_mode():
        model(batch(1)[0])
    model.train()


def forward_for_nothing(model: nn.Module, opt: Any) -> None:
    model(batch(2)[0])


def part_for_nothing(model: nn.Module, opt: Any) -> None:
    model.body(batch(2)[0])


def part_evaluated(model: nn.Module, opt: Any) -> None:
    model.body.eval()
    model.body(batch(2)[0])
    model.body.train()


def attack(model: nn.Module, opt: Any) -> None:
    """FGSM: the gradient of the input alone."""
    x, y = batch(2)
    x.requires_grad_(True)
    torch.autograd.grad(F.cross_entropy(model(x), y), x)


def attack_by_backward(model: nn.Module, opt: Any) -> None:
    """FGSM as most people write it: backward fills every gradient, and zero_grad empties them again."""
    x, y = batch(2)
    F.cross_entropy(model(x.requires_grad_(True)), y).backward()
    opt.zero_grad()


def attack_zeroing_in_place(model: nn.Module, opt: Any) -> None:
    x, y = batch(2)
    F.cross_entropy(model(x.requires_grad_(True)), y).backward()
    opt.zero_grad(set_to_none=False)


def another_loss(model: nn.Module, opt: Any) -> None:
    """A penalty is measured (and thrown away), twice."""
    for _ in range(2):
        loss_of(model, 3).backward()
        model.zero_grad()


def copied(model: nn.Module, opt: Any) -> None:
    copy.deepcopy(model)(batch(1)[0])


def average_evaluated(model: nn.Module, opt: Any) -> None:
    """An EMA of the model is a copy of it."""
    torch.optim.swa_utils.AveragedModel(model).eval()(batch(1)[0])


INTERLUDES: dict[str, Callable[[nn.Module, Any], None]] = {
    f.__name__: f
    for f in (
        evaluate,
        evaluate_with_gradients,
        forward_without_gradients,
        inference,
        forward_for_nothing,
        part_for_nothing,
        part_evaluated,
        attack,
        attack_by_backward,
        attack_zeroing_in_place,
        another_loss,
        copied,
        average_evaluated,
    )
}


def whole(model: Net, t: int) -> Tensor:
    return loss_of(model, t)


def by_parts(model: Net, t: int) -> Tensor:
    """Submodules are called directly, as a trainer's module or a head on a backbone does."""
    x, y = batch(t)
    return F.cross_entropy(model.head(model.body(x)), y)


def layer_by_layer(model: Net, t: int) -> Tensor:
    x, y = batch(t)
    for layer in model.body:
        x = layer(x)
    return F.cross_entropy(model.head(x), y)


def functional(model: Net, t: int) -> Tensor:
    """torch.func calls the module with its own parameters."""
    x, y = batch(t)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return F.cross_entropy(torch.func.functional_call(model, tensors, (x,)), y)


def reentrant(model: Net, t: int) -> Tensor:
    """The first forward of all has no gradients; backward runs it again."""
    x, y = batch(t)
    return F.cross_entropy(checkpoint(model, x.requires_grad_(True), use_reentrant=True), y)


def not_reentrant(model: Net, t: int) -> Tensor:
    x, y = batch(t)
    return F.cross_entropy(checkpoint(model, x, use_reentrant=False), y)


def body_reentrant(model: Net, t: int) -> Tensor:
    x, y = batch(t)
    return F.cross_entropy(model.head(checkpoint(model.body, x.requires_grad_(True), use_reentrant=True)), y)


def sequential_reentrant(model: Net, t: int) -> Tensor:
    x, y = batch(t)
    return F.cross_entropy(
        model.head(checkpoint_sequential(model.body, 2, x.requires_grad_(True), use_reentrant=True)), y
    )


def accumulated(model: Net, t: int) -> Tensor:
    """Two micro-batches in one graph each; their backward passes are the loop's."""
    x, y = batch(t)
    half = BATCH // 2
    return F.cross_entropy(model(x[:half]), y[:half]) / 2 + F.cross_entropy(model(x[half:]), y[half:]) / 2


def inside_a_container(model: Net, t: int) -> Tensor:
    """The optimizer's model= is a part of what the loop calls."""
    x, y = batch(t)
    return F.cross_entropy(nn.Sequential(nn.Identity(), model, nn.Dropout(0.1))(x), y)


WAYS: dict[str, Callable[[Net, int], Tensor]] = {
    f.__name__: f
    for f in (
        whole,
        by_parts,
        layer_by_layer,
        functional,
        reentrant,
        not_reentrant,
        body_reentrant,
        sequential_reentrant,
        accumulated,
        inside_a_container,
    )
}


def train(form: str, way: str, interludes: list[str], preset: Any = ssam) -> dict[str, Any]:
    model = net()
    opt = preset(model)
    torch.manual_seed(21)
    for t in range(STEPS):
        opt.zero_grad()
        for name in interludes:
            INTERLUDES[name](model, opt)
        FORMS[form](opt, lambda t=t: WAYS[way](model, t))
    return {**model.state_dict(), "rng": torch.get_rng_state()}


@pytest.mark.parametrize("form", ["two calls", "block"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_call_a_model(form, way):
    assert_same(train(form, way, []), train("closure", way, []))


@pytest.mark.parametrize("interlude", INTERLUDES)
@pytest.mark.parametrize("way", ["whole", "by_parts", "layer_by_layer", "reentrant"])
def test_an_interlude_before_every_step(interlude, way):
    assert_same(train("two calls", way, [interlude]), train("closure", way, [interlude]))


@pytest.mark.parametrize("way", ["whole", "by_parts"])
def test_all_interludes_at_once(way):
    names = list(INTERLUDES)
    assert_same(train("two calls", way, names), train("closure", way, names))


@pytest.mark.parametrize("interlude", ["evaluate", "inference", "average_evaluated", "part_evaluated"])
@pytest.mark.parametrize("moment", ["after pass 1", "at w + e", "after pass 2"])
def test_a_look_inside_a_step_changes_nothing(interlude, moment):
    """Evaluations draw nothing and count nothing, wherever they come."""
    results = []
    for looks in (False, True):
        model = net()
        opt = ssam(model)
        torch.manual_seed(21)
        for t in range(STEPS):
            opt.zero_grad()
            loss_of(model, t).backward()
            if looks and moment == "after pass 1":
                INTERLUDES[interlude](model, opt)
            opt.ascend()
            if looks and moment == "at w + e":
                INTERLUDES[interlude](model, opt)
            loss_of(model, t).backward()
            if looks and moment == "after pass 2":
                INTERLUDES[interlude](model, opt)
            opt.descend()
        assert counted(model) == STEPS
        results.append({**model.state_dict(), "rng": torch.get_rng_state()})
    assert_same(*results)


def test_micro_batches_in_two_calls():
    """K backward passes, ascend, the same K again: the step began before the first of them."""

    def pieces(model: Net, t: int) -> list[Callable[[], Tensor]]:
        x, y = batch(t)
        return [lambda a=a, b=b: F.cross_entropy(model(a), b) / 2 for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]

    model, want = net(), net()
    opt, reference = ssam(model), ssam(want)
    torch.manual_seed(21)
    for t in range(STEPS):
        opt.zero_grad()
        evaluate(model, opt)
        for piece in pieces(model, t):
            piece().backward()
        opt.ascend()
        for piece in pieces(model, t):
            piece().backward()
        opt.descend()
    got = {**model.state_dict(), "rng": torch.get_rng_state()}
    torch.manual_seed(21)
    for t in range(STEPS):

        def one_by_one(t: int = t) -> None:
            reference.zero_grad()
            for piece in pieces(want, t):
                piece().backward()

        reference.step(one_by_one)
    assert counted(model) == 2 * STEPS
    assert_same(got, {**want.state_dict(), "rng": torch.get_rng_state()})


@pytest.mark.parametrize("look", ["diagnose", "sharpness", "find_rho"])
@pytest.mark.parametrize("way", ["whole", "by_parts"])
def test_fenland_s_own_measurements_between_steps(look, way):
    """Measured in the middle of training or not: the two-call run that goes on is the same."""
    x, y = batch(1)
    results = []
    for form in ("two calls", "closure"):
        for looks in (False, True):
            model = net()
            opt = ssam(model)
            torch.manual_seed(21)
            for t in range(STEPS):
                opt.zero_grad()
                if looks and t == 2:
                    measure(look, model, opt, x, y)
                FORMS[form](opt, lambda t=t, m=model: WAYS[way](m, t))
            results.append({**model.state_dict(), "rng": torch.get_rng_state()})
    for got in results[1:]:
        assert_same(got, results[0])


def loss_fn(model: nn.Module, pair: Any) -> Tensor:
    return F.cross_entropy(model(pair[0]), pair[1])


def measure(look: str, model: nn.Module, opt: Any, x: Tensor, y: Tensor) -> None:
    if look == "diagnose":
        fenland.diagnose(model, loss_fn, [(x, y)] * 2, opt)
    elif look == "sharpness":
        fenland.sharpness(model, loss_fn, [(x, y)], rho=0.05)
    else:
        fenland.find_rho(model, loss_fn, [(x, y)] * 2)


def test_adversarial_examples_in_a_closure_are_replayed_and_in_two_calls_are_not():
    """FGSM inside each pass has masks of its own. A closure is replayed whole, so both passes have the same ones;
    in two calls pass 2 begins at the forward that gave g, so the example of pass 2 draws what that forward drew.
    """
    seen: list[Tensor] = []
    for form in ("closure", "two calls"):
        model = net()
        opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=1e-9, model=model)
        x, y = batch(0)

        def attacked(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> Tensor:
            model.zero_grad()
            clean = x.clone().requires_grad_()
            F.cross_entropy(model(clean), y).backward()
            seen.append(clean.grad)
            model.zero_grad()
            loss = F.cross_entropy(model(x + 0.1 * clean.grad.sign()), y)
            loss.backward()
            return loss

        torch.manual_seed(4)
        if form == "closure":
            opt.step(attacked)
        else:
            attacked()
            opt.ascend()
            attacked()
            opt.descend()
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-6, atol=1e-8)
    assert not torch.allclose(seen[3], seen[2], rtol=1e-3)
