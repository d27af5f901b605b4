"""Where peers broke silently, and where nobody looked: caches, hooks, odd parameters, mixed forms, every base."""

import copy
import gc
import inspect

import pytest
import torch
from torch import nn
from torch.optim import SGD

from cases import Problem, make_problem
from fenland import SAM
from harness import (
    BASES,
    Session,
    assert_same,
    buffers,
    every_perturb,
    every_two_call,
    every_variant,
    make,
    one_forward,
    plain,
    snapshot,
)

NOT_FIRST_ORDER = ("Optimizer", "LBFGS")
NEEDS_SPARSE = ("SparseAdam",)
TORCH_BASES = [
    cls
    for name, cls in sorted(vars(torch.optim).items())
    if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and name not in NOT_FIRST_ORDER + NEEDS_SPARSE
]


def matrices() -> Problem:
    """Two matrices (Muon takes nothing else) in float32 (NAdam's own state loses bits on loading in float64)."""
    problem = make_problem("mlp", torch.float32)
    for layer in (problem.model[0], problem.model[2]):
        layer.bias = None
    return problem


@every_variant
@pytest.mark.parametrize("cls", TORCH_BASES, ids=lambda c: c.__name__)
def test_every_optimizer_of_torch_is_a_base(variant, cls):
    """rho = 0 is the base bit for bit, and a resumed run goes on bit for bit; a base that cannot be one is named."""
    one, two = matrices(), matrices()
    alone = cls(two.parameters(), lr=0.01)
    if "rho" in alone.defaults:  # Adadelta's decay has the name of our radius
        with pytest.raises(ValueError, match=f"{cls.__name__}.*rho"):
            variant.build(cls(one.parameters(), lr=0.01))
        return
    session = Session(one, variant.build(cls(one.parameters(), lr=0.01), rho=0.0, model=one.model)).run(3)
    for t in range(3):
        two.start(t)
        two.closure(alone)()
        alone.step()
    assert_same(session.weights, [p.detach() for p in two.parameters()])
    session.opt.param_groups[0]["rho"] = 0.1
    session.run(2)
    three = copy.deepcopy(session.problem)
    resumed = Session(three, variant.build(cls(three.parameters(), lr=0.01), rho=0.1, model=three.model))
    resumed.opt.load_state_dict(copy.deepcopy(session.opt.state_dict()))
    assert_same(resumed.run(2).weights, session.run(2).weights)


@every_variant
@pytest.mark.parametrize(("plain_base", "other"), [("sgd_momentum", "sgd_fused"), ("adamw", "adamw_fused")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_fused_base_follows_the_plain_one(variant, plain_base, other, dtype):
    """What a fused kernel multiplies in by itself has the precision of the weights."""
    one, two = (make(variant, "mlp", base, dtype=dtype).run(5) for base in (plain_base, other))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for a, b in zip(one.weights, two.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every_variant
@pytest.mark.parametrize("base", ["sgd_fused", "adamw_fused"])
def test_nothing_handed_to_a_fused_base_outlives_its_step(variant, base):
    """A factor or a skip left on the base would act in the next step that has none."""
    session = make(variant, "mlp", base, dtype=torch.float32, rho=0.3).run(2)
    other = copy.deepcopy(session.problem)
    alone = BASES[base](other.parameters())
    alone.load_state_dict(copy.deepcopy(session.base.state_dict()))
    session.opt.param_groups[0]["rho"] = 0.0
    session.run(1, start=2)
    other.start(2)
    other.closure(alone)()
    alone.step()
    assert_same(session.weights, [p.detach() for p in other.parameters()])
    assert not {"grad_scale", "found_inf"} & set(vars(session.base))


@every_variant
def test_a_maximising_base_is_refused_or_right(variant):
    """Maximising -f is minimising f: then e must go down -f, not up."""
    session = make(variant, "mlp", "sgd", rho=0.5)
    other = copy.deepcopy(session.problem)
    criterion = other.criterion
    other.criterion = lambda out, y: -criterion(out, y)
    try:
        opt = variant.build(SGD(other.parameters(), lr=0.1, maximize=True), rho=0.5)
    except (ValueError, TypeError) as error:
        assert "maximize" in str(error)  # noqa: PT017
        return
    mirrored = Session(other, opt).run(3)
    for a, b in zip(session.run(3).weights, mirrored.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@every_variant
@every_perturb
def test_autocast_around_the_whole_step_does_not_hide_the_ascent(variant, perturb):
    """autocast keeps the casts of leaf weights until its block ends: casts of w must not serve pass 2."""
    inside, outside = (make(variant, "mlp", "sgd", dtype=torch.float32, rho=0.5, perturb=perturb) for _ in range(2))
    losses = []
    for session, around in ((inside, False), (outside, True)):
        closure = session.problem.closure(session.opt)

        def cast(closure=closure):
            with torch.autocast("cpu", torch.bfloat16):
                return closure()

        if around:
            with torch.autocast("cpu", torch.bfloat16):
                session.opt.step(closure)
        else:
            session.opt.step(cast)
        losses.append(float(session.opt.last.loss_ascent))
    assert losses[0] == losses[1]
    assert_same(outside.weights, inside.weights)


@every_two_call
@every_perturb
def test_autocast_around_two_calls_does_not_hide_the_ascent(variant, perturb):
    session = make(variant, "mlp", "sgd", dtype=torch.float32, rho=0.5, perturb=perturb)
    with torch.autocast("cpu", torch.bfloat16):
        first = session.problem.loss()
        first.backward()
        session.opt.ascend()
        second = session.problem.loss()
        second.backward()
        session.opt.descend()
        after = session.problem.loss()
    assert second.item() > first.item()
    fresh = session.problem.loss().item()
    assert after.item() == pytest.approx(fresh, abs=0.02)
    assert after.item() != first.item()


class Container(nn.Module):
    """A module that only holds the network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Trainer(Container):
    """A module with a forward for prediction, which the training loop does not use (as a LightningModule)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).argmax(-1)


@every_two_call
@pytest.mark.parametrize("outer", [Container, Trainer])
def test_a_wrapper_whose_forward_is_never_called_guards_its_parts(variant, outer):
    """model= names the outer module, the loop calls the inner one: buffers and masks are guarded all the same."""
    problem = make_problem("conv_bn_dropout")
    opt = variant.build(BASES["sgd"](problem.parameters()), rho=0.1, model=outer(problem.model))
    session = Session(problem, opt, "two_call")
    for t in range(3):
        expected = one_forward(session, t)
        session.step(t)
        assert_same((buffers(problem.model), torch.get_rng_state()), expected)


@every_two_call
def test_the_two_forms_may_alternate(variant):
    session = make(variant, "conv_bn_dropout")
    for t, form in enumerate(["closure", "two_call", "two_call", "closure", "two_call"]):
        session.form = form
        expected = one_forward(session, t)
        session.step(t)
        assert_same((buffers(session.problem.model), torch.get_rng_state()), expected)


@every_two_call
def test_an_error_between_the_calls_can_be_given_up(variant):
    session = make(variant, "conv_bn_dropout", form="two_call").run(2)
    before = snapshot(session)
    session.problem.start(2)
    session.problem.loss().backward()
    session.opt.ascend()
    session.problem.loss()
    session.opt.restore()
    assert_same(snapshot(session), before)


@every_two_call
def test_ascend_says_whether_a_second_pass_is_due(variant):
    """With rho = 0 it returns False, and descend() steps with g at once."""
    session, reference = make(variant, "mlp", rho=0.0), make(variant, "mlp", rho=0.0).run(1)
    session.problem.loss().backward()
    assert session.opt.ascend() is False
    session.opt.descend()
    assert_same(session.weights, reference.weights)
    session.opt.param_groups[0]["rho"] = 0.1
    session.opt.zero_grad()
    session.problem.loss().backward()
    assert session.opt.ascend() is True
    session.opt.restore()


@every_two_call
@pytest.mark.parametrize("form", ["closure", "two_call", "unused"])
def test_dropped_optimizers_leave_no_hooks_on_the_model(variant, form):
    problem = make_problem("conv_bn_dropout")
    hooks = lambda: sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in problem.model.modules())  # noqa: E731
    before = hooks()
    for _ in range(3):
        opt = variant.build(BASES["sgd"](problem.parameters()), rho=0.1, model=problem.model)
        Session(problem, opt, form).run(int(form != "unused"))
        del opt
        gc.collect()
    assert hooks() <= before + len(list(problem.model.modules())), "each new optimizer clears up after the last"
    problem.loss()
    assert hooks() == before


def test_the_garbage_collector_may_come_in_the_middle_of_a_forward():
    """Torch goes through a module's hooks while a dropped optimizer's cycle is collected: no hook may vanish then."""
    problem = make_problem("mlp")
    opt = SAM(SGD(problem.parameters(), lr=0.1), rho=0.1, model=problem.model)
    opt.myself = opt  # a cycle: only the collector frees it
    del opt
    hooks = problem.model._forward_pre_hooks
    walk = iter(hooks.items())
    next(walk)
    gc.collect()
    assert list(walk) == []  # "OrderedDict mutated during iteration" otherwise
    problem.loss()
    assert not hooks


@every_variant
@every_perturb
def test_zeroing_in_place_is_as_good_as_none(variant, perturb):
    session, reference = make(variant, "mlp", perturb=perturb), make(variant, "mlp", perturb=perturb).run(4)
    zero = session.opt.zero_grad
    session.opt.zero_grad = lambda: zero(set_to_none=False)
    session.run(4)
    for a, b in zip(session.weights, reference.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


ODD = {
    "a number": lambda: torch.tensor(0.7, dtype=torch.float64),
    "nothing": lambda: torch.empty(0, 3, dtype=torch.float64),
    "a transpose": lambda: torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4).t(),
    "single precision": lambda: torch.linspace(-1, 1, 5),
    "half the bits": lambda: torch.linspace(-1, 1, 6).bfloat16(),
}


def odd_session(variant, perturb: str, chosen: list[str], lr: float, rho: float):
    params = [nn.Parameter(ODD[name]()) for name in chosen]
    opt = variant.build(SGD(params, lr=lr), rho=rho, perturb=perturb)
    points = []

    def closure():
        opt.zero_grad()
        points.append([p.detach().clone() for p in params])
        loss = sum((p.double() ** 4).sum() for p in params)
        loss.backward()
        return loss

    return params, opt, closure, points


@every_variant
@every_perturb
@pytest.mark.parametrize("name", [*ODD, "all"])
def test_odd_parameters(variant, perturb, name):
    """Scalars, empty tensors, transposes, several precisions in one optimizer: restored exactly, one norm for all."""
    chosen = list(ODD) if name == "all" else [name, "a number"]
    params, opt, closure, points = odd_session(variant, perturb, chosen, lr=0.0, rho=0.5)
    strides = [p.stride() for p in params]
    opt.step(closure)
    assert_same([p.detach() for p in params], points[0])
    assert [p.stride() for p in params] == strides
    if variant.preset.name in ("SAM", "SSAM"):
        e = [(b - a).double() for a, b in zip(*points, strict=True)]
        assert float(sum((x**2).sum() for x in e)) ** 0.5 == pytest.approx(0.5, rel=1e-2)
    params, opt, closure, points = odd_session(variant, perturb, chosen, lr=0.01, rho=0.1)
    for _ in range(3):
        opt.step(closure)
    assert float(opt.last.loss) < float(sum((p.double() ** 4).sum() for p in points[0]))


@every_variant
def test_a_callable_radius_in_a_group(variant):
    """Each group may have its own schedule; the numbers are saved, the callables are not."""
    problem = make_problem("mlp")
    groups = [
        {"params": [p], "rho": r} for p, r in zip(problem.parameters(), (lambda t: 0.1 * t, 0.2) * 2, strict=True)
    ]
    session = Session(problem, variant.build(SGD(groups, lr=0.1), rho=0.9))
    session.run(3)
    assert [round(g["rho"], 12) for g in session.opt.param_groups] == [0.2, 0.2, 0.2, 0.2]
    assert all(isinstance(g["rho"], float) for g in session.opt.state_dict()["param_groups"])


@every_variant
def test_a_refused_checkpoint_leaves_the_optimizer_usable(variant):
    session = make(variant, "mlp").run(1)
    before = snapshot(session)
    bad = copy.deepcopy(make(variant, "groups").run(1).opt.state_dict())
    with pytest.raises(ValueError, match="group"):
        session.opt.load_state_dict(bad)
    assert_same(snapshot(session), before)
    session.run(1, start=1)


@every_variant
def test_the_state_that_is_saved_is_not_the_live_one_s_radius(variant):
    """Changing a loaded dict's groups afterwards does not reach the optimizer."""
    session = make(variant, "mlp", rho=0.2).run(1)
    state = session.opt.state_dict()
    state["param_groups"][0]["rho"] = 99.0
    assert session.opt.param_groups[0]["rho"] == 0.2
    session.opt.load_state_dict(state)
    assert session.opt.param_groups[0]["rho"] == 99.0
    state["param_groups"][0]["rho"] = 1.0
    assert session.opt.param_groups[0]["rho"] == 99.0


@every_variant
def test_a_weight_clamped_in_the_forward_is_still_restored(variant):
    """A module that edits its own weight in pass 2 (weight clipping) edits w + e, which is dropped."""
    session = make(variant, "mlp", lr=0.0, rho=5.0)
    layer = session.problem.model[0]
    before = session.weights

    def clamp(module, args):
        if session.problem.pass_index > 1:
            with torch.no_grad():
                module.weight.clamp_(-0.1, 0.1)

    layer.register_forward_pre_hook(clamp)
    session.step()
    assert_same(session.weights, before)


@every_variant
def test_gan_two_optimizers_one_graph(variant):
    """Generator and critic share a forward; each step restores what it moved and touches the other's weights never."""
    torch.manual_seed(1)
    g, c = nn.Linear(2, 3).double(), nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1)).double()
    both = nn.ModuleList([g, c])
    z = torch.randn(8, 2, dtype=torch.float64)
    steps = [
        (variant.build(SGD(m.parameters(), lr=0.05), rho=0.1, model=both), m, other, sign)
        for m, other, sign in ((c, g, 1.0), (g, c, -1.0))
    ]
    for _ in range(3):
        for opt, _module, other, sign in steps:
            held = [p.detach().clone() for p in other.parameters()]
            seen = []

            def closure(opt=opt, sign=sign, other=other, seen=seen):
                both.zero_grad()
                seen.append([p.detach().clone() for p in other.parameters()])
                loss = sign * c(g(z)).mean()
                loss.backward()
                return loss

            opt.step(closure)
            assert_same(seen, [held] * len(seen))
            assert_same([p.detach() for p in other.parameters()], held)


def test_the_plain_base_of_the_harness_is_plain():
    """The reference runs of this suite contain no fenland."""
    session = plain("mlp")
    assert type(session.opt) is SGD
    assert "rho" not in session.opt.param_groups[0]
