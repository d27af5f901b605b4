"""What a forward or a closure must not do twice, and what a second pass must not lack: updates, and a backward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fenland
from peer_loops import FORMS, assert_same, by_closure, everything, loss_of, net, sgd, ssam

POINT = 4


def stepping(other: Any, opt: Any, model: nn.Module) -> Any:
    def closure() -> Tensor:
        opt.zero_grad()
        other.zero_grad()
        loss = loss_of(model)
        loss.backward()
        other.step()
        return loss

    return closure


@pytest.mark.parametrize("preset", ["SAM", "LookSAM", "GSAM"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_plain_optimizer_of_the_same_parameters_is_refused(preset, guarded):
    """The base's own step left in the closure: the weights moved at w, at w + e, and once more."""
    model = net()
    base = sgd(model)
    opt = getattr(fenland, preset)(base, rho=0.2, model=model if guarded else None)
    before = everything(model)
    with pytest.raises(RuntimeError, match=r"SGD\.step\(\) inside the closure.* update twice"):
        opt.step(stepping(base, opt, model))
    assert_same(everything(model), {**before, **(dict(model.named_buffers()) if not guarded else {})})


PASS_2 = "parameters that this optimizer does not train, such as .*, changed in pass 2"


def test_a_plain_optimizer_of_another_part_of_the_model_is_named_once():
    """Muon for the matrices by fenland, AdamW for the rest by its old line in the closure: it stepped twice."""
    model = net()
    opt, rest = ssam(model, sgd(model.body)), torch.optim.AdamW(model.head.parameters())

    def train() -> None:
        for _ in range(3):
            opt.step(stepping(rest, opt, model))

    with pytest.warns(UserWarning, match=f"2 {PASS_2}.*after step") as told:
        train()
    assert len(told) == 1


class Teacher(nn.Module):
    """MoCo, BYOL, DINO: a frozen twin that follows the trained network inside forward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.student = net()
        self.teacher, self.how = copy.deepcopy(self.student).requires_grad_(False), how

    @torch.no_grad()
    def follow(self) -> None:
        for q, k in zip(self.student.parameters(), self.teacher.parameters(), strict=True):
            if self.how == "k.data =":
                k.data = k.data * 0.9 + q.data * 0.1
            elif self.how == "k.data.mul_":
                k.data.mul_(0.9).add_(q.data, alpha=0.1)
            else:
                k.lerp_(q, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how != "after the step":
            self.follow()
        return self.student(x) + self.teacher(x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["k.data =", "k.data.mul_", "k.lerp_"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_momentum_encoder_that_moves_in_forward_is_named_once(form, how, whole):
    """It moved twice a step, the second time towards w + e, and nothing said so."""
    model = Teacher(how)
    opt = ssam(model, sgd(model if whole else model.student))

    def train() -> None:
        for t in range(3):
            opt.zero_grad()
            FORMS[form](opt, lambda t=t: loss_of(model, t))

    with pytest.warns(UserWarning, match=PASS_2) as told:
        train()
    assert len(told) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_momentum_encoder_that_moves_after_the_step_is_right(form):
    """The cure that is named, and frozen parameters that nobody moves: not a word (warnings are errors here)."""
    model = Teacher("after the step")
    opt = ssam(model, sgd(model.student))
    for t in range(3):
        opt.zero_grad()
        FORMS[form](opt, lambda t=t: loss_of(model, t))
        was = copy.deepcopy(model.teacher)
        model.follow()
        for q, k, old in zip(*(m.parameters() for m in (model.student, model.teacher, was)), strict=True):
            assert torch.equal(k, old.lerp(q, 0.1))


def test_an_optimizer_of_another_network_is_nobody_s_business():
    model, other = net(), nn.Linear(2, 2)
    opt, theirs = ssam(model), torch.optim.SGD(other.parameters(), lr=0.1)
    other(torch.ones(1, 2)).sum().backward()

    def closure() -> Tensor:
        theirs.step()
        opt.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    opt.step(closure)
    assert opt.last.loss_ascent is not None


@pytest.mark.parametrize("norm", ["joint", "each"])
def test_a_base_of_a_step_together_too(norm):
    model = net()
    bases = [sgd(model.body), sgd(model.head)]
    both = [ssam(model, base) for base in bases]
    before = everything(model)

    def closure() -> Tensor:
        model.zero_grad()
        loss = loss_of(model)
        loss.backward()
        bases[1].step()
        return loss

    with pytest.raises(RuntimeError, match=r"SGD\.step\(\) inside the closure"):
        fenland.step_together(both, closure, norm=norm)
    assert_same(everything(model), before)


@pytest.mark.parametrize("fails", [True, False])
def test_after_the_step_the_base_steps_as_before(fails):
    model = net()
    base = sgd(model)
    opt = ssam(model, base)
    if fails:
        with pytest.raises(RuntimeError):
            opt.step(stepping(base, opt, model))
    else:
        by_closure(opt, lambda: loss_of(model))
    assert not base._optimizer_step_pre_hooks
    loss_of(model).backward()
    base.step()


# The second pass

NOTHING = "at w \\+ e no parameter of the optimizer has a gradient, so this step does nothing"


@pytest.mark.parametrize("form", ["two calls", "block", "closure"])
def test_no_gradient_at_the_ascent_point_is_one_warning(form):
    """The second backward is forgotten, or reaches no weight: nothing ever trains, and nothing said so."""
    model = net()
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.2, model=model)
    passes: list[int] = []

    def loss() -> Tensor:
        passes.append(1)
        value = loss_of(model)
        return value if len(passes) % 2 else value.detach().requires_grad_()  # backward reaches no weight

    def train() -> None:
        for _ in range(3):
            opt.zero_grad()
            FORMS[form](opt, loss)

    with pytest.warns(UserWarning, match=NOTHING) as told:
        train()
    assert len(told) == 1


def test_a_gradient_zeroed_before_descend_is_the_same_warning():
    model = net()
    opt = ssam(model)
    loss_of(model).backward()
    opt.ascend()
    loss_of(model).backward()
    opt.zero_grad()
    with pytest.warns(UserWarning, match=NOTHING):
        opt.descend()
