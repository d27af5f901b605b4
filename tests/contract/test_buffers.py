"""Contract 3: buffers and random state after a step are as after one forward at w; both passes start from the same."""

import copy
import warnings

import pytest
import torch
from torch import nn

from cases import BUFFERED, RANDOM, make_problem
from harness import (
    BASES,
    TWO_CALL,
    Session,
    assert_same,
    both_forms,
    buffers,
    every_perturb,
    every_two_call,
    every_variant,
    make,
    one_forward,
)


def skip_unless(variant, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")


@every_variant
@both_forms
@every_perturb
@pytest.mark.parametrize("case", BUFFERED)
def test_buffers_and_random_state_are_as_after_one_forward(variant, form, perturb, case):
    skip_unless(variant, form)
    session = make(variant, case, form=form, perturb=perturb)
    for t in range(3):
        expected = one_forward(session, t)
        session.step(t)
        assert_same((buffers(session.problem.model), torch.get_rng_state()), expected)


@every_variant
@both_forms
@pytest.mark.parametrize("case", BUFFERED)
def test_every_pass_starts_from_the_same_buffers_and_random_state(variant, form, case):
    skip_unless(variant, form)
    session = make(variant, case, form=form)
    seen = []
    session.problem.model.register_forward_pre_hook(lambda m, _: seen.append((buffers(m), torch.get_rng_state())))
    for t in range(2):
        seen.clear()
        session.step(t)
        assert len(seen) == variant.passes
        for later in seen[1:]:
            assert_same(later, seen[0])


def masks(session: Session) -> list:
    """What every dropout layer lets through, pass by pass."""
    out = []
    for module in session.problem.model.modules():
        if isinstance(module, nn.Dropout):
            # ones in, so zeros out are the mask alone
            module.register_forward_hook(lambda m, args, y: out.append((y == 0) & (args[0] != 0)))
            module.register_forward_pre_hook(lambda m, args: (args[0] + 1e-3,))
    return out


@every_variant
@both_forms
@pytest.mark.parametrize("case", RANDOM)
def test_dropout_masks_are_equal_in_all_passes_and_new_in_every_step(variant, form, case):
    skip_unless(variant, form)
    session = make(variant, case, form=form, rho=1e-3)
    seen = masks(session)
    for t in range(3):
        session.step(t)
    assert len(seen) == 3 * variant.passes
    per_step = [seen[i : i + variant.passes] for i in range(0, len(seen), variant.passes)]
    for same in per_step:
        for mask in same[1:]:
            assert torch.equal(mask, same[0])
    assert not torch.equal(per_step[0][0], per_step[1][0])
    assert bool(seen[0].any())


@every_variant
def test_masks_are_equal_without_a_model_too(variant):
    """In step(closure) the random state is replayed whether or not fenland knows the model."""
    session = make(variant, "conv_bn_dropout")
    session.problem.model[1] = nn.Identity()  # no buffers: nothing to warn of but the dropout
    seen = masks(session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opt = variant.build(BASES["sgd"](session.problem.model.parameters()), rho=1e-3)
        Session(session.problem, opt).step()
    assert len(seen) == variant.passes
    for mask in seen[1:]:
        assert torch.equal(mask, seen[0])


@every_variant
def test_replay_can_be_switched_off(variant):
    session = make(variant, "spectral_norm", rho=1e-6, replay_rng=False)
    if variant.passes < 2:
        pytest.skip("one pass")
    seen = masks(session)
    session.step()
    assert not torch.equal(seen[0], seen[1])


@every_two_call
def test_an_evaluation_between_two_steps_changes_nothing(variant):
    """A validation pass and a shuffle lie between the steps: pass 2 still repeats pass 1, not the validation."""
    session = make(variant, "conv_bn_dropout", form="two_call", rho=1e-3)
    seen = masks(session)
    session.step(0)
    model = session.problem.model
    model.eval()
    with torch.no_grad():
        model(session.problem.x[0])
    model.train()
    torch.randperm(10)
    seen.clear()
    expected = one_forward(session, 1)
    seen.clear()
    session.step(1)
    assert torch.equal(seen[0], seen[1])
    assert_same((buffers(model), torch.get_rng_state()), expected)


@every_two_call
def test_accumulation_in_two_calls_replays_every_micro_batch(variant):
    session = make(variant, "conv_bn_dropout", form="two_call", rho=1e-3)
    model, seen = session.problem.model, masks(session)
    parts = (slice(0, 3), slice(3, 6))
    reference = copy.deepcopy(session.problem)
    state = torch.get_rng_state()
    for part in parts:
        reference.loss(part).backward()
    expected = buffers(reference.model), torch.get_rng_state()
    torch.set_rng_state(state)
    seen.clear()
    for part in parts:
        session.problem.loss(part).backward()
    session.opt.ascend()
    for part in parts:
        session.problem.loss(part).backward()
    session.opt.descend()
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert_same((buffers(model), torch.get_rng_state()), expected)


@every_variant
def test_the_model_stays_in_its_mode_and_gains_no_attribute(variant):
    session = make(variant, "conv_bn_dropout")
    keys = list(session.problem.model.state_dict())
    session.problem.model[1].eval()
    session.run(2)
    assert session.problem.model.training
    assert not session.problem.model[1].training
    assert list(session.problem.model.state_dict()) == keys
    assert int(session.problem.model[1].num_batches_tracked) == 0


@every_variant
def test_in_place_buffers_keep_their_address(variant):
    """A buffer that the forward updates in place is still the same memory (compiled graphs and DDP rely on it)."""
    session = make(variant, "conv_bn_dropout")
    buffer = session.problem.model[1].running_mean
    address = buffer.data_ptr()
    session.run(3)
    assert session.problem.model[1].running_mean is buffer
    assert buffer.data_ptr() == address


@every_variant
def test_without_a_model_one_warning_names_the_cure(variant):
    if variant.passes < 2:
        pytest.skip("one pass")
    problem = make_problem("bn_cumulative")
    opt = variant.build(BASES["sgd"](problem.parameters()), rho=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Session(problem, opt).run(3)
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert len(texts) == 1, texts
    assert "model=" in texts[0]


@every_variant
def test_without_a_model_a_clean_module_draws_no_warning(variant):
    """pytest turns warnings into errors, so running is the assertion; the weights are those with model=."""
    problem = make_problem("mlp")
    session = Session(problem, variant.build(BASES["sgd"](problem.parameters()), rho=0.1)).run(2)
    assert_same(session.weights, make(variant, "mlp", "sgd").run(2).weights)
