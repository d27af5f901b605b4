"""Contract 4: with rho = 0 in every group training is the base optimizer's, bit for bit, at one closure call a step."""

import pytest
import torch

from harness import (
    TWO_CALL,
    Session,
    assert_same,
    both_forms,
    buffers,
    every_base,
    every_perturb,
    every_variant,
    make,
    plain,
)


def train_plain(case: str, base: str, steps: int, dtype: torch.dtype) -> Session:
    session = plain(case, base, dtype=dtype)
    for t in range(steps):
        session.problem.start(t)
        session.problem.closure(session.opt)()
        session.opt.step()
    return session


@every_variant
@every_base
@both_forms
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rho_zero_is_the_base(variant, base, form, dtype):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    reference = train_plain("conv_bn_dropout", base, 10, dtype)
    rng = torch.get_rng_state()
    session = make(variant, "conv_bn_dropout", base, rho=0.0, form=form, dtype=dtype).run(10)
    assert_same(session.weights, reference.weights)
    assert_same(buffers(session.problem.model), buffers(reference.problem.model))
    assert_same(session.base.state_dict()["state"], reference.base.state_dict()["state"])
    assert_same(torch.get_rng_state(), rng)


@every_variant
@every_perturb
@pytest.mark.parametrize("case", ["spectral_norm", "buffers", "recurrent", "tied", "embedding"])
def test_rho_zero_is_the_base_on_other_models(variant, perturb, case):
    reference = train_plain(case, "sgd_momentum", 5, torch.float64)
    session = make(variant, case, rho=0.0, perturb=perturb).run(5)
    assert_same(session.weights, reference.weights)
    assert_same(buffers(session.problem.model), buffers(reference.problem.model))


@pytest.mark.parametrize("variant", TWO_CALL, ids=lambda v: v.name)
def test_a_needless_second_pass_changes_nothing(variant):
    """Two calls with rho = 0: d = g, so a parameter that only pass 2 used gets nothing."""
    session = make(variant, "second_pass_only", "sgd", rho=0.0, form="two_call")
    extra = session.problem.model.extra.weight
    before = extra.detach().clone()
    session.run(2)
    assert_same(extra.detach(), before)


@every_variant
def test_rho_zero_takes_one_pass(variant):
    session = make(variant, "conv_bn_dropout", rho=0.0)
    for t in range(3):
        session.step(t)
        assert session.problem.pass_index == 1


@every_variant
def test_a_positive_rho_takes_the_declared_number_of_passes(variant):
    session = make(variant, "mlp", rho=0.1)
    for t in range(6):
        session.step(t)
        assert session.problem.pass_index == variant.passes


@every_variant
def test_rho_may_reach_zero_and_come_back(variant):
    """A schedule that ends at zero ends in the base optimizer."""
    session = make(variant, "conv_bn_dropout", rho=lambda step: 0.0 if step == 1 else 0.1)
    passes = []
    for t in range(3):
        session.step(t)
        passes.append(session.problem.pass_index)
    assert passes == [variant.passes, 1, variant.passes]


@every_variant
@every_perturb
def test_a_group_with_rho_zero_is_not_moved(variant, perturb):
    """Its weights are the same in every pass; they are still updated."""
    session = make(variant, "groups", "sgd", perturb=perturb)
    params = list(session.problem.model.parameters())
    still = [params[1]]  # dealt out in turn over rho = 0.1, 0, 0.3: 1 is in the group with rho = 0
    before = still[0].detach().clone()
    seen = []
    session.problem.model.register_forward_pre_hook(lambda m, _: seen.append([p.detach().clone() for p in params]))
    session.step()
    for row in seen[1:]:
        assert_same(row[1], before)
        assert not torch.equal(row[0], seen[0][0])
        assert not torch.equal(row[2], seen[0][2])
    assert not torch.equal(still[0], before)
