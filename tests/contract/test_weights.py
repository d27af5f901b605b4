"""Contract 1: after a step with lr = 0 every weight is bit-identical, and exactly the tensors moved are restored."""

import copy
import gc

import pytest
import torch

from cases import BUFFERED, CASES
from harness import (
    BASES,
    TWO_CALL,
    Session,
    assert_same,
    both_forms,
    buffers,
    every_base,
    every_perturb,
    every_two_call,
    every_variant,
    make,
    one_forward,
)


@every_variant
@every_perturb
@pytest.mark.parametrize("case", CASES)
def test_lr_zero_changes_nothing(variant, perturb, case):
    session = make(variant, case, lr=0.0, perturb=perturb)
    before = session.weights
    for t in range(3):
        expected = one_forward(session, t)
        session.step(t)
        if case in BUFFERED:
            assert_same((buffers(session.problem.model), torch.get_rng_state()), expected)
    assert_same(session.weights, before)


@every_two_call
@every_perturb
@pytest.mark.parametrize("case", CASES)
def test_lr_zero_changes_nothing_in_two_calls(variant, perturb, case):
    session = make(variant, case, lr=0.0, perturb=perturb, form="two_call")
    before = session.weights
    session.run(2)
    assert_same(session.weights, before)


@every_variant
@every_base
@both_forms
def test_lr_zero_with_every_base(variant, base, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "groups", base, lr=0.0, form=form)
    before = session.weights
    session.run(3)
    assert_same(session.weights, before)


@every_variant
@every_perturb
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_large_radius_leaves_no_rounding_residue(variant, perturb, dtype):
    """Adding e and subtracting it again would leave one here."""
    session = make(variant, "mlp", lr=0.0, perturb=perturb, dtype=dtype, rho=50.0)
    before = session.weights
    session.run(5)
    assert_same(session.weights, before)


@every_two_call
@every_perturb
def test_the_ascent_really_moves_the_weights(variant, perturb):
    """Otherwise the tests above would hold for an engine that does nothing."""
    session = make(variant, "mlp", perturb=perturb, rho=0.5)
    before = session.weights
    session.problem.loss().backward()
    session.opt.ascend()
    moved = sum(float((a - b).norm() ** 2) for a, b in zip(session.weights, before, strict=True)) ** 0.5
    assert moved > 0.05
    session.opt.restore()
    assert_same(session.weights, before)


@every_two_call
@every_perturb
def test_restore_gives_up_the_ascent(variant, perturb):
    session = make(variant, "conv_bn_dropout", perturb=perturb)
    before = session.weights
    session.problem.loss().backward()
    session.opt.ascend()
    assert all(p.grad is None for p in session.problem.model.parameters())
    session.problem.loss().backward()
    session.opt.restore()
    assert_same(session.weights, before)
    assert all(p.grad is None for p in session.problem.model.parameters())
    assert len(session.base.state) == 0
    session.run(2)  # and the optimizer still works


@every_variant
@every_perturb
@both_forms
def test_only_the_moved_tensors_are_restored(variant, perturb, form):
    """A parameter without a gradient in pass 1 is the closure's own: what pass 2 writes into it stays."""
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "unused", perturb=perturb, form=form)
    model = session.problem.model
    plain_loss = session.problem.loss

    def loss():
        with torch.no_grad():
            model.never_used.add_(1.0)
        return plain_loss()

    session.problem.loss = loss
    session.step()
    assert_same(model.never_used.detach(), torch.full((3,), 1.0 + variant.passes, dtype=torch.float64))


@every_variant
@every_perturb
@both_forms
def test_every_parameter_keeps_its_address_and_identity(variant, perturb, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "mlp", perturb=perturb, form=form)
    params = list(session.problem.model.parameters())
    addresses = [p.data_ptr() for p in params]
    session.run(4)
    assert [p.data_ptr() for p in params] == addresses
    assert all(p is q for p, q in zip(params, session.problem.model.parameters(), strict=True))
    assert all(p.is_leaf and p.requires_grad for p in params)


@every_variant
@pytest.mark.parametrize("case", ["first_pass_only", "second_pass_only"])
def test_conditional_parameters_follow_their_own_rule(variant, case):
    """Used in pass 1 only: no h reaches the base. In pass 2 only: it is not perturbed, but updated."""
    session = make(variant, case, "sgd")
    extra = session.problem.model.extra.weight
    before = extra.detach().clone()
    seen = []
    session.problem.model.extra.register_forward_pre_hook(lambda m, _: seen.append(m.weight.detach().clone()))
    session.step()
    assert len(seen) == 1
    assert_same(seen[0], before)
    method = getattr(session.opt.rules.method, "method", session.opt.rules.method)  # inside Renormalize
    still = case == "first_pass_only" and "g" not in method.combine.reads  # else d holds its share of g
    assert torch.equal(extra, before) == still
    assert session.problem.model.first.weight.isfinite().all()


@every_variant
def test_a_frozen_parameter_stays_and_can_be_unfrozen(variant):
    session = make(variant, "frozen", "sgd")
    frozen = session.problem.model[2].weight
    before = frozen.detach().clone()
    session.run(2)
    assert_same(frozen.detach(), before)
    assert frozen.grad is None
    frozen.requires_grad_(True)
    session.run(1)
    assert not torch.equal(frozen, before)


@every_variant
@both_forms
def test_no_gradient_at_all_is_a_no_op_that_returns_the_loss(variant, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "mlp")
    before = session.weights

    def nothing():
        if form == "closure":
            assert float(session.opt.step(lambda: torch.tensor(3.0))) == 3.0
        else:
            session.opt.ascend()
            session.opt.descend()

    with pytest.warns(UserWarning, match=r"no parameter .* has a gradient"):
        nothing()
    nothing()  # warned once is enough
    assert_same(session.weights, before)
    assert len(session.base.state) == 0
    session.run(2)


@every_variant
@every_base
@both_forms
def test_a_zero_gradient_is_a_plain_base_step(variant, base, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "mlp", base, form=form)
    other = copy.deepcopy(session.problem)
    reference = Session(other, BASES[base](other.parameters()))
    for s in (session, reference):
        s.problem.criterion = lambda out, _: (out * 0.0).sum()
        s.run(2)
    assert_same(session.weights, reference.weights)
    assert all(w.isfinite().all() for w in session.weights)


@every_variant
def test_nothing_of_the_step_is_kept_alive(variant):
    """The scratch of a step dies with it: between steps SAM, USAM and SSAM keep no weight-sized tensor."""
    if variant.preset.name not in ("SAM", "USAM", "SSAM", "SSAM-U"):
        pytest.skip("keeps declared rule state")
    session = make(variant, "mlp", "sgd")
    gc.collect()
    before = {id(t) for t in _matrices()}  # held, among them the model's own and what other tests left
    session.run(2)
    session.opt.zero_grad()
    gc.collect()
    wanted = {p.shape for p in session.problem.model.parameters()}
    left = [tuple(t.shape) for t in _matrices() if id(t) not in before and t.shape in wanted]
    assert not left, left


def _matrices() -> list[torch.Tensor]:
    return [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter) and o.dim() == 2]
