"""The two-call form, davda54's names, and the errors for calls in the wrong order: each names its cure."""

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
)


@every_two_call
@every_base
@every_perturb
def test_two_calls_equal_the_closure(variant, base, perturb):
    closure = make(variant, "conv_bn_dropout", base, perturb=perturb).run(4)
    two = make(variant, "conv_bn_dropout", base, form="two_call", perturb=perturb).run(4)
    assert_same(two.weights, closure.weights)


@every_two_call
@every_perturb
def test_the_names_of_davda54(variant, perturb):
    """first_step(zero_grad=True) and second_step(zero_grad=True), as in the loop people come from."""
    session = make(variant, "mlp", perturb=perturb)
    problem, opt = session.problem, session.opt
    for t in range(3):
        problem.start(t)
        problem.loss().backward()
        opt.first_step(zero_grad=True)
        assert all(p.grad is None for p in problem.model.parameters())
        problem.loss().backward()
        opt.second_step(zero_grad=True)
        assert all(p.grad is None for p in problem.model.parameters())
    assert_same(session.weights, make(variant, "mlp", perturb=perturb).run(3).weights)


@every_two_call
@every_perturb
def test_no_gradient_is_left_after_the_ascent(variant, perturb):
    """Its buffer may hold w + e: a training loop that reads it would be misled."""
    session = make(variant, "mlp", perturb=perturb)
    params = list(session.problem.model.parameters())
    session.problem.loss().backward()
    session.opt.ascend()
    assert all(p.grad is None for p in params)
    session.problem.loss().backward()
    session.opt.descend()
    session.opt.zero_grad()
    session.problem.loss().backward()
    session.opt.first_step()
    assert all(p.grad is None for p in params)
    session.opt.restore()
    assert all(p.grad is None for p in params)


@every_two_call
def test_the_second_pass_sees_w_plus_e_even_without_zero_grad(variant):
    """h must not contain g: nothing accumulates across the ascent."""
    session, reference = make(variant, "mlp", form="two_call"), make(variant, "mlp").run(1)
    session.problem.start(0)
    session.problem.loss().backward()
    session.opt.ascend()
    session.problem.loss().backward()
    session.opt.descend()
    assert_same(session.weights, reference.weights)


@every_two_call
def test_descend_without_ascend(variant):
    session = make(variant, "mlp")
    session.problem.loss().backward()
    before = session.weights
    with pytest.raises(RuntimeError, match=r"ascend\(\)"):
        session.opt.descend()
    with pytest.raises(RuntimeError, match=r"ascend|first_step"):
        session.opt.second_step()
    assert_same(session.weights, before)


@every_two_call
def test_ascend_twice(variant):
    session = make(variant, "mlp")
    session.problem.loss().backward()
    session.opt.ascend()
    up = session.weights
    session.problem.loss().backward()
    with pytest.raises(RuntimeError, match=r"descend\(\)"):
        session.opt.ascend()
    assert_same(session.weights, up)
    session.opt.restore()


@every_two_call
def test_step_inside_an_ascent(variant):
    session = make(variant, "mlp")
    before = session.weights
    session.problem.loss().backward()
    session.opt.ascend()
    with pytest.raises(RuntimeError, match=r"descend\(\)|restore\(\)"):
        session.opt.step(session.problem.closure(session.opt))
    session.opt.restore()
    assert_same(session.weights, before)


@every_two_call
def test_descend_after_restore(variant):
    session = make(variant, "mlp")
    session.problem.loss().backward()
    session.opt.ascend()
    session.opt.restore()
    with pytest.raises(RuntimeError, match=r"ascend\(\)"):
        session.opt.descend()


@every_two_call
def test_descend_without_a_second_backward(variant):
    """No gradient in pass 2 although pass 1 had some: the forgotten backward is named, and nothing happens."""
    session = make(variant, "mlp", "sgd")
    before = session.weights
    session.problem.loss().backward()
    session.opt.ascend()
    with pytest.warns(UserWarning, match="at w \\+ e no parameter of the optimizer has a gradient.*backward"):
        session.opt.descend()
    assert_same(session.weights, before)


@every_variant
def test_step_without_a_closure_names_the_cure(variant):
    session = make(variant, "mlp").run(1)
    before = session.weights
    session.problem.loss().backward()
    with pytest.raises((RuntimeError, TypeError), match="closure"):
        session.opt.step()
    assert_same(session.weights, before)


@every_variant
def test_a_closure_that_is_not_callable(variant):
    session = make(variant, "mlp")
    with pytest.raises(TypeError, match="closure"):
        session.opt.step(torch.ones(()))


@every_two_call
def test_an_error_in_a_nested_step_keeps_the_outer_ascent_usable(variant):
    session = make(variant, "mlp", "sgd", form="two_call")
    reference = make(variant, "mlp", "sgd").run(1)
    session.problem.start(0)
    session.problem.loss().backward()
    session.opt.ascend()
    with pytest.raises(RuntimeError):
        session.opt.state_dict()
    with pytest.raises(RuntimeError):
        session.opt.ascend()
    session.problem.loss().backward()
    session.opt.descend()
    assert_same(session.weights, reference.weights)


@every_variant
def test_a_stale_graph_is_an_error_that_leaves_the_weights(variant):
    """A loss built before the step: its graph is freed after pass 1, and pass 2 must not continue on nothing."""
    if variant.passes < 2:
        pytest.skip("one pass")
    session = make(variant, "mlp")
    before = session.weights
    stale = session.problem.loss()

    def closure():
        session.opt.zero_grad()
        stale.backward()
        return stale

    with pytest.raises(RuntimeError):
        session.opt.step(closure)
    assert_same(session.weights, before)


@every_variant
@pytest.mark.parametrize("pack", [lambda x: {"loss": x, "logits": None}, lambda x: (x, 3)], ids=["dict", "tuple"])
def test_a_closure_may_return_more_than_the_loss(variant, pack):
    """What it returned at w comes back unchanged, and the step is the same."""
    session, reference = make(variant, "mlp"), make(variant, "mlp")
    closure, made = session.problem.closure(session.opt), []
    value = session.opt.step(lambda: made.append(pack(closure())) or made[-1])
    assert value is made[0]
    reference.run(1)
    assert_same(session.weights, reference.weights)
    assert float(session.opt.last.loss) == float(reference.opt.last.loss)


@every_variant
def test_a_scaler_that_steps_the_optimizer_itself_is_refused(variant):
    """scaler.step(opt) has one gradient, still scaled: it names the call that is right and changes nothing."""
    session = make(variant, "mlp", dtype=torch.float32)
    before = session.weights
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(session.problem.loss()).backward()
    with pytest.raises(RuntimeError, match=r"scaler=scaler"):
        scaler.step(session.opt)
    assert_same(session.weights, before)


@every_variant
def test_the_wrapper_names_its_base(variant):
    problem = Session(make(variant, "mlp").problem, None).problem
    base = BASES["sgd"](problem.parameters())
    opt = variant.build(base)
    assert opt.base is base
    assert opt.param_groups is base.param_groups or all(
        a is b for a, b in zip(opt.param_groups, base.param_groups, strict=True)
    )
    assert "rho" in opt.param_groups[0]
