"""Contract 8 and the schedulers of 9: accumulation, micro-batches, schedulers in both APIs without a warning."""

import pytest
import torch
from torch.optim import lr_scheduler as lrs

from harness import TWO_CALL, Session, assert_same, both_forms, every_base, every_perturb, every_variant, make


def accumulating(session: Session, k: int):
    """The closure that replays k micro-batches."""

    def closure():
        session.opt.zero_grad()
        n = len(session.problem.x[0])
        total = torch.zeros((), dtype=session.problem.x.dtype)
        for i in range(k):
            loss = session.problem.loss(slice(i * n // k, (i + 1) * n // k)) / k
            loss.backward()
            total += loss.detach()
        return total

    return closure


@every_variant
@every_perturb
@pytest.mark.parametrize("k", [2, 4, 8])
def test_micro_batches_in_the_closure_equal_one_big_batch(variant, perturb, k):
    big = make(variant, "mlp", dtype=torch.float32).run(5)
    small = make(variant, "mlp", dtype=torch.float32, perturb=perturb)
    for t in range(5):
        small.problem.start(t)
        loss = small.opt.step(accumulating(small, k))
    for a, b in zip(small.weights, big.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert loss.shape == ()


@pytest.mark.parametrize("variant", TWO_CALL, ids=lambda v: v.name)
def test_micro_batches_in_two_calls_equal_one_big_batch(variant):
    big = make(variant, "mlp").run(3)
    small = make(variant, "mlp")
    for t in range(3):
        small.problem.start(t)
        accumulating(small, 4)()
        small.opt.ascend()
        accumulating(small, 4)()
        small.opt.descend()
    for a, b in zip(small.weights, big.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


SCHEDULERS = {
    "StepLR": lambda o: lrs.StepLR(o, 2, gamma=0.5),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, max_lr=0.2, total_steps=12),
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda t: 0.9**t),
    "SequentialLR": lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.1, 1.0, 2), lrs.ExponentialLR(o, 0.9)], [2]),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=0),
}


def advance(scheduler) -> None:
    scheduler.step(1.0) if isinstance(scheduler, lrs.ReduceLROnPlateau) else scheduler.step()


@every_variant
@both_forms
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw"])
@pytest.mark.filterwarnings("error")
def test_schedulers_attach_with_no_warning(variant, form, name, base):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "mlp", base, form=form)
    other = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=session.opt.param_groups[0]["lr"], momentum=0.9)
    scheduler, reference = SCHEDULERS[name](session.opt), SCHEDULERS[name](other)
    for t in range(6):
        session.step(t)
        advance(scheduler)
        other.step()
        advance(reference)
        lr = other.param_groups[0]["lr"]
        assert session.opt.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-12)
        assert session.opt.base.param_groups[0]["lr"] == session.opt.param_groups[0]["lr"]


@every_variant
@both_forms
@pytest.mark.filterwarnings("error")
def test_a_scheduler_drives_the_base_after_loading_too(variant, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "mlp", "sgd", form=form)
    scheduler = lrs.StepLR(session.opt, 1, gamma=0.0)
    session.opt.load_state_dict(session.opt.state_dict())
    session.run(1)
    scheduler.step()
    before = session.weights
    session.run(1, start=1)
    assert_same(session.weights, before)


@every_variant
@pytest.mark.filterwarnings("error")
def test_a_scheduler_is_warned_of_when_no_step_was_taken(variant):
    """torch's warning must not be lost for those who really forgot the step."""
    session = make(variant, "mlp")
    scheduler = lrs.StepLR(session.opt, 1)
    with pytest.raises(UserWarning, match=r"optimizer\.step"):
        scheduler.step()


@every_variant
@every_base
def test_the_loss_at_w_is_returned(variant, base):
    session = make(variant, "conv_bn_dropout", base)
    seen = []
    loss = session.problem.loss
    session.problem.loss = lambda: seen.append(loss()) or seen[-1]
    returned = session.step()
    assert isinstance(returned, torch.Tensor)
    assert float(returned.detach()) == float(seen[0].detach())


@every_variant
def test_a_closure_may_return_a_number(variant):
    """A Python number is allowed by torch's own optimizers."""
    session, reference = make(variant, "mlp"), make(variant, "mlp")
    closure = session.problem.closure(session.opt)
    assert float(session.opt.step(lambda: closure().item())) == reference.step().item()
    assert_same(session.weights, reference.weights)


@every_variant
def test_gradients_are_enabled_inside_the_closure(variant):
    session, reference = make(variant, "mlp"), make(variant, "mlp").run(1)
    with torch.no_grad():
        session.run(1)
    assert_same(session.weights, reference.weights)


@every_variant
@both_forms
def test_hooks_of_torch_run_once_per_update(variant, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "mlp", form=form)
    calls = []
    session.opt.register_step_post_hook(lambda *_: calls.append("wrapper"))
    session.opt.base.register_step_post_hook(lambda *_: calls.append("base"))
    session.run(2)
    assert calls.count("base") == 2
    if form == "closure":
        assert calls.count("wrapper") == 2


@every_variant
def test_zero_grad_and_the_optimizer_type(variant):
    session = make(variant, "mlp").run(1)
    assert isinstance(session.opt, torch.optim.Optimizer)
    session.problem.loss().backward()
    session.opt.zero_grad()
    assert all(p.grad is None for p in session.problem.model.parameters())
    session.problem.loss().backward()
    session.opt.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in session.problem.model.parameters())


@every_variant
def test_two_optimizers_over_disjoint_parameters_do_not_touch_each_other(variant):
    """A GAN's loop: each step moves its own half only."""
    session = make(variant, "mlp")
    params = list(session.problem.model.parameters())
    halves = [
        variant.build(torch.optim.SGD(p, lr=0.1), rho=0.3, model=session.problem.model)
        for p in (params[:2], params[2:])
    ]
    seen = []
    session.problem.model.register_forward_pre_hook(lambda m, _: seen.append([p.detach().clone() for p in params]))
    for mine, others in ((0, slice(2, 4)), (1, slice(0, 2))):
        seen.clear()
        before = [p.detach().clone() for p in params[others]]

        def closure():
            for p in params:
                p.grad = None
            loss = session.problem.loss()
            loss.backward()
            return loss

        halves[mine].step(closure)
        for row in seen:
            assert_same(row[others], before)
        assert_same([p.detach() for p in params[others]], before)
