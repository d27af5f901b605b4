"""Contract 5: what a checkpoint holds, resuming bit for bit, re-linked groups, copies."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR

from harness import (
    BASES,
    TWO_CALL,
    Session,
    assert_same,
    both_forms,
    every_base,
    every_two_call,
    every_variant,
    make,
    plain,
    tensors,
)

STATELESS = ("SAM", "USAM", "SSAM", "SSAM-U")


def through_disk(state: dict) -> dict:
    """Saved and loaded as a stranger would, with weights_only=True."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(session: Session, variant, case: str, base: str, **options) -> Session:
    """A new process: fresh model and optimizer, everything loaded from the file."""
    saved = through_disk({"model": session.problem.model.state_dict(), "opt": session.opt.state_dict()})
    rng = torch.get_rng_state()
    fresh = make(variant, case, base, form=session.form, **options)
    fresh.problem.model.load_state_dict(saved["model"])
    fresh.opt.load_state_dict(saved["opt"])
    torch.set_rng_state(rng)
    return fresh


def linked(opt) -> bool:
    groups, base = opt.param_groups, opt.base.param_groups
    return len(groups) == len(base) and all(a is b for a, b in zip(groups, base, strict=True))


@every_variant
@every_base
@both_forms
def test_ten_steps_are_five_and_five(variant, base, form):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    whole = make(variant, "conv_bn_dropout", base, form=form).run(10)
    half = make(variant, "conv_bn_dropout", base, form=form).run(5)
    rest = resumed(half, variant, "conv_bn_dropout", base).run(5, start=5)
    assert_same(rest.weights, whole.weights)
    assert_same(rest.base.state_dict()["state"], whole.base.state_dict()["state"])


@every_variant
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw_fused"])
def test_a_schedule_of_rho_goes_on_where_it_was(variant, base):
    def rho(step):
        return 0.02 * (1 + step)

    whole = make(variant, "mlp", base, rho=rho).run(10)
    half = make(variant, "mlp", base, rho=rho).run(5)
    rest = resumed(half, variant, "mlp", base, rho=rho).run(5, start=5)
    assert_same(rest.weights, whole.weights)


@every_variant
def test_a_constant_rho_is_restored_from_the_checkpoint(variant):
    session = make(variant, "mlp", rho=0.3).run(2)
    rest = resumed(session, variant, "mlp", "sgd_momentum", rho=0.05)
    assert [g["rho"] for g in rest.opt.param_groups] == [0.3]
    assert_same(rest.run(2, start=2).weights, session.run(2, start=2).weights)


@every_variant
@every_base
def test_the_checkpoint_holds_no_scratch(variant, base):
    session = make(variant, "mlp", base).run(3)
    state, base_state = session.opt.state_dict(), session.base.state_dict()
    extra = {(i, key) for i, row in state["state"].items() for key in row if key not in base_state["state"].get(i, {})}
    assert all(str(key).startswith("fenland.") for _, key in extra)
    if variant.preset.name in STATELESS:
        assert not extra
    size = sum(p.numel() for p in session.problem.model.parameters())
    outside = {k: v for k, v in state.items() if k != "state"}
    assert sum(t.numel() for t in tensors(outside)) < size
    for weights in session.weights:
        assert not any(t.shape == weights.shape and torch.equal(t, weights) for t in tensors(state))
    for i, row in base_state["state"].items():
        for key, value in row.items():
            assert_same(state["state"][i][key], value)


@every_variant
def test_callables_are_never_saved(variant):
    session = make(variant, "mlp", rho=lambda step: 0.1).run(1)
    pickle.dumps(session.opt.state_dict())  # a lambda cannot be pickled
    through_disk(session.opt.state_dict())


@every_variant
@every_base
def test_a_plain_base_checkpoint_loads_and_keeps_rho(variant, base):
    reference = plain("mlp", base)
    for t in range(3):
        reference.problem.start(t)
        reference.problem.closure(reference.opt)()
        reference.opt.step()
    session = make(variant, "mlp", base, rho=0.37)
    session.problem.model.load_state_dict(reference.problem.model.state_dict())
    session.opt.load_state_dict(through_disk(reference.opt.state_dict()))
    assert [g["rho"] for g in session.opt.param_groups] == [0.37]
    assert_same(session.base.state_dict()["state"], reference.opt.state_dict()["state"])
    assert linked(session.opt)
    session.run(2)


@every_variant
@every_base
def test_the_base_loads_our_checkpoint(variant, base):
    session = make(variant, "mlp", base).run(3)
    other = copy.deepcopy(session.problem)
    alone = BASES[base](other.parameters())
    alone.load_state_dict(through_disk(session.opt.state_dict()))
    for i, row in session.base.state_dict()["state"].items():
        for key, value in row.items():
            assert_same(alone.state_dict()["state"][i][key], value)
    other.start(0)
    other.closure(alone)()
    alone.step()


@every_variant
@pytest.mark.parametrize("through", ["opt", "base"])
def test_groups_are_the_same_objects_after_every_load(variant, through):
    session = make(variant, "groups").run(2)
    assert linked(session.opt)
    target = session.opt if through == "opt" else session.opt.base
    target.load_state_dict(copy.deepcopy(target.state_dict()))
    assert linked(session.opt)
    session.opt.param_groups[0]["lr"] = 0.0
    session.opt.param_groups[0]["weight_decay"] = 0.0
    first = session.opt.param_groups[0]["params"]
    before = [p.detach().clone() for p in first]
    session.run(1, start=2)
    assert_same([p.detach() for p in first], before)
    assert not any(torch.equal(p, q) for p, q in zip(session.opt.param_groups[1]["params"], before, strict=False))


@every_variant
def test_loading_through_the_base_keeps_rho(variant):
    session = make(variant, "mlp", rho=0.3).run(1)
    reference = plain("mlp")
    session.opt.base.load_state_dict(reference.opt.state_dict())
    assert linked(session.opt)
    session.run(1, start=1)
    assert float(session.opt.param_groups[0]["rho"]) == 0.3


SCHEDULERS = {
    "step": lambda opt: StepLR(opt, 2, gamma=0.5),
    "cosine": lambda opt: CosineAnnealingLR(opt, 10),
    "lambda": lambda opt: LambdaLR(opt, _halving),
}


def _halving(epoch: int) -> float:
    return 0.5**epoch


def train(session: Session, scheduler, steps: int, start: int) -> list:
    for t in range(start, start + steps):
        session.step(t)
        scheduler.step()
    return session.weights


def copies(how: str, session: Session, scheduler):
    bundle = (session.problem, session.opt, scheduler)
    problem, opt, other = copy.deepcopy(bundle) if how == "deepcopy" else pickle.loads(pickle.dumps(bundle))
    return Session(problem, opt, session.form), other


@every_variant
@both_forms
@pytest.mark.parametrize("base", ["sgd_momentum", "adamw_fused"])
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_copies_train_on_alike_and_apart(variant, form, base, how, scheduler):
    if form == "two_call" and variant not in TWO_CALL:
        pytest.skip("not a two-pass method")
    session = make(variant, "spectral_norm" if how == "deepcopy" else "mlp", base, form=form)
    schedule = SCHEDULERS[scheduler](session.opt)
    train(session, schedule, 3, 0)
    other, other_schedule = copies(how, session, schedule)
    assert linked(other.opt)
    assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(*(list(_p(s)) for s in (session, other)), strict=True))
    rng = torch.get_rng_state()
    frozen = session.weights
    after = train(other, other_schedule, 3, 3)
    assert_same(session.weights, frozen)
    torch.set_rng_state(rng)
    assert_same(train(session, schedule, 3, 3), after)
    assert session.opt.param_groups[0]["lr"] == other.opt.param_groups[0]["lr"]


def _p(session):
    return session.problem.model.parameters()


@every_variant
def test_a_copy_made_before_the_first_step_works(variant):
    session = make(variant, "mlp")
    other, _ = copies("deepcopy", session, None)
    assert_same(session.run(3).weights, other.run(3).weights)


@every_variant
@pytest.mark.parametrize("given", [{}, {"rho": 0.0}, {"rho": 0.7, "lr": 0.5}])
def test_an_added_group_reaches_the_base(variant, given):
    session = make(variant, "mlp", rho=0.2)
    late = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    session.opt.add_param_group({"params": [late], **given})
    assert linked(session.opt)
    assert session.opt.base.param_groups[-1]["params"][0] is late
    assert float(session.opt.param_groups[-1]["rho"]) == given.get("rho", 0.2)
    assert session.opt.param_groups[-1]["lr"] == given.get("lr", 0.1)
    loss = session.problem.loss
    session.problem.loss = lambda: loss() + (late**2).sum()
    session.run(2)
    assert bool((late < 1).all())


@every_two_call
@pytest.mark.parametrize("action", ["state_dict", "load_state_dict", "deepcopy", "pickle"])
def test_no_checkpoint_in_the_middle_of_a_step(variant, action):
    """Weights are at w + e there: a file or a copy would hold the wrong ones."""
    session = make(variant, "mlp", form="two_call").run(1)
    state = copy.deepcopy(session.opt.state_dict())
    session.problem.loss().backward()
    session.opt.ascend()
    with pytest.raises(RuntimeError, match=r"descend|restore"):
        {
            "state_dict": lambda: session.opt.state_dict(),
            "load_state_dict": lambda: session.opt.load_state_dict(state),
            "deepcopy": lambda: copy.deepcopy(session.opt),
            "pickle": lambda: pickle.dumps(session.opt),
        }[action]()
    session.opt.restore()
    session.opt.state_dict()


@every_variant
def test_torch_distributed_checkpoint_reads_a_fresh_optimizer(variant):
    """get_optimizer_state_dict calls step() with no closure, lr 0 and zero gradients: that goes to the base."""
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    whole = make(variant, "mlp", "adamw").run(4)
    half = make(variant, "mlp", "adamw").run(2)
    before = half.weights
    saved = through_disk(get_optimizer_state_dict(half.problem.model, half.opt))
    assert_same(half.weights, before)
    fresh = make(variant, "mlp", "adamw")
    fresh.problem.model.load_state_dict(half.problem.model.state_dict())
    set_optimizer_state_dict(fresh.problem.model, fresh.opt, saved)
    assert linked(fresh.opt)
    assert_same(fresh.weights, before)
    assert_same(fresh.run(2, start=2).weights, whole.weights)
