"""Contract 2: a failing step leaves weights, base state, buffers and random state as they were before it."""

import copy

import pytest
import torch

from harness import (
    BASES,
    Session,
    assert_same,
    every_base,
    every_perturb,
    every_two_call,
    every_variant,
    make,
    snapshot,
)

CASE = "conv_bn_dropout"
NOT_FINITE = r"(?i)non-?finite|not finite"
passes = pytest.mark.parametrize("bad_pass", [1, 2])
first_or_later = pytest.mark.parametrize("good_steps", [0, 3], ids=["first step", "later step"])


def faulty(session: Session, bad_pass: int, fault) -> callable:
    """The session's closure, with `fault(loss)` in the given pass after backward."""
    closure = session.problem.closure(session.opt)
    calls = []

    def run():
        loss = closure()
        calls.append(0)
        if len(calls) == bad_pass:
            fault(session.problem.model)
        return loss

    return run


def raising(error: BaseException):
    def fault(model):
        raise error

    return fault


def spoil(value: float):
    """Put one non-finite number into one gradient."""

    def fault(model):
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        grads[1].view(-1)[0] = value

    return fault


def skip_unless(variant, bad_pass):
    if bad_pass > variant.passes:
        pytest.skip("the method has no such pass")


@every_variant
@every_perturb
@passes
@first_or_later
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_an_exception_leaves_everything_as_before(variant, perturb, bad_pass, good_steps, error):
    skip_unless(variant, bad_pass)
    session = make(variant, CASE, perturb=perturb).run(good_steps)
    before = snapshot(session)
    session.problem.start(good_steps)
    with pytest.raises(type(error)):
        session.opt.step(faulty(session, bad_pass, raising(error)))
    assert_same(snapshot(session), before)


@every_variant
@every_base
@passes
def test_training_goes_on_after_an_exception_as_if_nothing_had_happened(variant, base, bad_pass):
    skip_unless(variant, bad_pass)
    session = make(variant, CASE, base).run(2)
    session.problem.start(2)
    with pytest.raises(RuntimeError, match="boom"):
        session.opt.step(faulty(session, bad_pass, raising(RuntimeError("boom"))))
    after = session.run(3, start=2).weights
    assert_same(after, make(variant, CASE, base).run(5).weights)


@every_variant
@every_perturb
def test_an_exception_in_the_middle_of_the_second_forward(variant, perturb):
    """Raised by a layer, as an out-of-memory error is: some layers have run at w + e, no gradient exists yet."""
    skip_unless(variant, 2)
    session = make(variant, CASE, perturb=perturb).run(1)
    before = snapshot(session)
    session.problem.start(1)

    def oom(module, args):
        if session.problem.pass_index == 2:
            raise torch.OutOfMemoryError("no memory")

    handle = session.problem.model[-1].register_forward_pre_hook(oom)
    with pytest.raises(torch.OutOfMemoryError):
        session.step(1)
    handle.remove()
    assert_same(snapshot(session), before)


@every_variant
@every_base
@passes
@first_or_later
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_gradient_skips_the_step(variant, base, bad_pass, good_steps, value):
    skip_unless(variant, bad_pass)
    session = make(variant, CASE, base).run(good_steps)
    before = snapshot(session)
    session.problem.start(good_steps)
    session.opt.step(faulty(session, bad_pass, spoil(value)))
    assert bool(session.opt.last.skipped)
    assert_same(snapshot(session), before)
    session.run(1, start=good_steps)
    assert not bool(session.opt.last.skipped)


@every_variant
@every_perturb
@passes
def test_a_non_finite_gradient_skips_with_every_perturb(variant, perturb, bad_pass):
    skip_unless(variant, bad_pass)
    session = make(variant, CASE, perturb=perturb).run(1)
    before = snapshot(session)
    session.problem.start(1)
    session.opt.step(faulty(session, bad_pass, spoil(float("nan"))))
    assert_same(snapshot(session), before)


@every_variant
@every_base
@passes
def test_a_skipped_first_step_leaves_the_base_freshly_made(variant, base, bad_pass):
    """Also from dirty memory: torch's fused SGD keeps uninitialised momentum when it skips its own first step."""
    skip_unless(variant, bad_pass)
    dirt = [torch.full((n,), float("nan"), dtype=torch.float64) for n in (36, 4, 192, 3, 64) for _ in range(50)]
    session = make(variant, CASE, base)
    fresh = copy.deepcopy(session.base.state_dict())
    del dirt
    session.problem.start(0)
    session.opt.step(faulty(session, bad_pass, spoil(float("inf"))))
    assert_same(session.base.state_dict(), fresh)
    assert len(session.base.state) == 0
    assert_same(session.run(4).weights, make(variant, CASE, base).run(4).weights)


@every_variant
@every_base
@passes
def test_training_after_a_skip_equals_training_without_it(variant, base, bad_pass):
    skip_unless(variant, bad_pass)
    session = make(variant, CASE, base).run(2)
    session.problem.start(2)
    session.opt.step(faulty(session, bad_pass, spoil(float("nan"))))
    session.run(3, start=2)
    reference = make(variant, CASE, base).run(5)
    assert_same(session.weights, reference.weights)
    assert_same(session.base.state_dict()["state"], reference.base.state_dict()["state"])


@every_variant
@passes
@first_or_later
def test_policy_raise_leaves_everything_as_before(variant, bad_pass, good_steps):
    skip_unless(variant, bad_pass)
    session = make(variant, CASE, nonfinite="raise").run(good_steps)
    before = snapshot(session)
    session.problem.start(good_steps)
    with pytest.raises(FloatingPointError, match=NOT_FINITE):
        session.opt.step(faulty(session, bad_pass, spoil(float("nan"))))
    assert_same(snapshot(session), before)


@every_variant
@every_base
@first_or_later
def test_policy_base_step_takes_the_plain_step_when_the_ascent_fails(variant, base, good_steps):
    """g is finite, h is not: the base gets g, as if this were a plain step. Never a NaN in the weights."""
    skip_unless(variant, 2)
    session = make(variant, "mlp", base, nonfinite="base_step").run(good_steps)
    twin = copy.deepcopy(session.problem)
    reference = BASES[base](twin.parameters())
    reference.load_state_dict(copy.deepcopy(session.base.state_dict()))
    twin.start(good_steps)
    twin.closure(reference)()
    reference.step()
    session.problem.start(good_steps)
    session.opt.step(faulty(session, 2, spoil(float("nan"))))
    for got, want in zip(session.problem.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


@every_variant
@every_base
@first_or_later
def test_policy_base_step_never_lets_a_bad_gradient_in(variant, base, good_steps):
    """g itself is not finite: there is no plain step to take, so the step is skipped."""
    session = make(variant, CASE, base, nonfinite="base_step").run(good_steps)
    before = snapshot(session)
    session.problem.start(good_steps)
    session.opt.step(faulty(session, 1, spoil(float("nan"))))
    assert_same(snapshot(session), before)


@every_two_call
@every_perturb
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_two_calls_skip_a_bad_first_pass(variant, perturb, policy):
    session = make(variant, CASE, perturb=perturb, form="two_call", nonfinite=policy).run(2)
    before = snapshot(session)
    session.problem.start(2)
    session.problem.loss().backward()
    spoil(float("nan"))(session.problem.model)

    def rest():
        session.opt.ascend()
        assert_same(session.weights, before["weights"])
        session.problem.loss().backward()
        session.opt.descend()

    if policy == "raise":
        with pytest.raises(FloatingPointError, match=NOT_FINITE):
            rest()
    else:
        rest()
        assert bool(session.opt.last.skipped)
    assert_same(snapshot(session), before)
    session.opt.zero_grad()
    session.run(1)


@every_two_call
@every_perturb
@every_base
def test_two_calls_skip_a_bad_second_pass(variant, perturb, base):
    session = make(variant, CASE, base, perturb=perturb, form="two_call")
    before = snapshot(session)
    session.problem.start(0)
    session.problem.loss().backward()
    session.opt.ascend()
    session.problem.loss().backward()
    spoil(float("inf"))(session.problem.model)
    session.opt.descend()
    assert bool(session.opt.last.skipped)
    assert_same(snapshot(session), before)
    assert len(session.base.state) == 0


@every_two_call
@every_perturb
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_context_restores_on_error(variant, perturb, error):
    session = make(variant, CASE, perturb=perturb, form="two_call").run(1)
    before = snapshot(session)
    session.problem.start(1)
    session.problem.loss().backward()
    with pytest.raises(error), session.opt.ascent():  # noqa: PT012 - the block is what is tested
        session.problem.loss().backward()
        raise error
    assert_same(snapshot(session), before)
    assert all(p.grad is None for p in session.problem.model.parameters())
    session.opt.zero_grad()
    session.run(1)


@every_two_call
@every_perturb
def test_the_context_is_the_two_calls(variant, perturb):
    """`with opt.ascent():` around the second pass ascends on entry and descends on exit."""
    session, reference = (make(variant, CASE, perturb=perturb, form="two_call") for _ in range(2))
    torch.manual_seed(3)
    reference.run(2)
    torch.manual_seed(3)
    for t in range(2):
        session.problem.start(t)
        session.problem.loss().backward()
        with session.opt.ascent():
            session.problem.loss().backward()
        session.opt.zero_grad()
    assert_same(session.weights, reference.weights)
