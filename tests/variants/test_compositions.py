"""Random compositions of the choices keep the core of the contract, and the choices refuse bad arguments."""

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fenland
from cases import make_problem
from fenland import (
    L2,
    Adaptive,
    AdaptiveToNorm,
    Always,
    Ascend,
    AtAscentPoint,
    Both,
    Centralized,
    Clipped,
    Control,
    Cosine,
    EveryK,
    ExponentialAverage,
    Fisher,
    Friendly,
    Gradient,
    InfNorm,
    InnerSteps,
    LossBudget,
    Lp,
    OnlyLayers,
    Penalty,
    Previous,
    RandomTensors,
    Renormalize,
    Reuse,
    SharpnessAware,
    Sparse,
    Spectral,
    Spherical,
    SphericalSearch,
    SurrogateGap,
    TiedToLearningRate,
    Unnormalized,
    WarmUp,
    Weighted,
    WeightedDecoupled,
    Window,
    WithProbability,
    ZScore,
)
from harness import BASES, Session, assert_same

FLAT = [
    L2(), Unnormalized(), Clipped(), Lp(1.0), Lp(3.0), Lp(math.inf), InfNorm(), Adaptive(), Adaptive(0.0, "layer"),
    Adaptive(0.1, "filter", False), Fisher(10.0), Spectral(), LossBudget(0.1),
]  # fmt: skip
balls = st.one_of(
    st.sampled_from(FLAT),
    st.sampled_from(FLAT).map(Sparse),
    st.sampled_from(FLAT).map(ZScore),
    st.sampled_from(FLAT).map(RandomTensors),
    st.sampled_from(FLAT).map(lambda b: OnlyLayers(b, (nn.Linear,))),
    st.sampled_from(FLAT).map(lambda b: Sparse(RandomTensors(b))),
)
sources = st.sampled_from(
    [
        Gradient(),
        ExponentialAverage(),
        Friendly(),
        Friendly(0.5, 0.5, "new"),
        Previous(),
        Centralized(),
    ]
)
combines = st.sampled_from(
    [
        AtAscentPoint(),
        Penalty(),
        Penalty(0.5, True),
        SurrogateGap(),
        SurrogateGap(0.4, False),
        Weighted(0.8),
        Spherical(),
        Control(),
    ]
)
inner = st.sampled_from([InnerSteps(2), InnerSteps(3, "full"), InnerSteps(3, "project", 0.6)])
plain = st.one_of(
    st.builds(Ascend, sources, combines),
    st.builds(lambda method, combine: replace(method, combine=combine), inner, combines),
    st.sampled_from([Reuse(), SphericalSearch((0.0, 0.7, 1.3), every=2)]),
)
methods = st.one_of(
    plain,
    st.just(WeightedDecoupled(0.8)),
    plain.map(Renormalize),
    plain.map(lambda method: Renormalize(method, cap=1.5)),
)
whens = st.sampled_from(
    [
        Always(),
        EveryK(2),
        EveryK(3, 1),
        WithProbability(0.5),
        AdaptiveToNorm(10),
        Window(1, 4),
        Both(EveryK(2), Window(2)),
    ]
)
radii = st.sampled_from([0.05, Cosine(0.1, 0.0, 8), WarmUp(0.1, 3), TiedToLearningRate(0.01, 0.1, 0.1)])
choices = st.fixed_dictionaries({"rho": radii, "ball": balls, "method": methods, "when": whens})


def session(chosen, lr=0.05, base="sgd_momentum") -> Session:
    problem = make_problem("conv_bn_dropout")
    torch.manual_seed(7)
    return Session(problem, SharpnessAware(BASES[base](problem.parameters(), lr=lr), model=problem.model, **chosen))


def core_of_the_contract(chosen):
    still = session(chosen, lr=0.0)
    before = still.weights
    still.run(4)
    assert_same(still.weights, before)

    whole, half = session(chosen).run(6), session(chosen).run(3)
    assert all(w.isfinite().all() for w in whole.weights)
    file = io.BytesIO()
    torch.save({"model": half.problem.model.state_dict(), "opt": half.opt.state_dict()}, file)
    file.seek(0)
    saved, rng = torch.load(file, weights_only=True), torch.get_rng_state()
    rest = session(chosen)
    rest.problem.model.load_state_dict(saved["model"])
    rest.opt.load_state_dict(saved["opt"])
    torch.set_rng_state(rng)
    assert_same(rest.run(3, start=3).weights, whole.weights)


@settings(max_examples=40)
@given(choices)
def test_any_composition_keeps_the_core_of_the_contract(chosen):
    core_of_the_contract(chosen)


@pytest.mark.slow
@settings(max_examples=120)
@given(choices)
def test_more_compositions_keep_the_core_of_the_contract(chosen):
    core_of_the_contract(chosen)


@settings(max_examples=30)
@given(choices)
def test_any_composition_gives_up_a_bad_step(chosen):
    run = session(chosen).run(2)
    state, before = _state(run), run.weights
    loss = run.problem.loss
    run.problem.loss = lambda: loss() * (float("nan") if run.problem.pass_index else 1.0)
    run.problem.start(2)
    run.opt.step(run.problem.closure(run.opt))
    run.problem.loss = loss
    if bool(run.opt.last.skipped):
        assert_same(run.weights, before)
        assert_same(_state(run), state)
    assert all(w.isfinite().all() for w in run.weights)


def _state(run):
    """Without rho, which a schedule writes at the beginning of every step, taken or not."""
    state = copy.deepcopy(run.opt.state_dict())
    for group in state["param_groups"]:
        del group["rho"]
    return state


EUCLIDEAN = [L2(), Unnormalized(), Clipped(), InfNorm(), LossBudget(0.1), fenland.FullNorm(lambda: 2.0)]
WRAPPERS = {
    "bare": lambda b: b,
    "sparse": Sparse,
    "z-score": ZScore,
    "tensors": RandomTensors,
    "layers": lambda b: OnlyLayers(b, (nn.Linear,)),
    "sparse tensors": lambda b: RandomTensors(Sparse(b)),
}
# A mask's length is noted in units of the largest radius, so several radii go with bare balls.
PLACES = [*((name, False) for name in WRAPPERS), ("bare", True)]
SOURCES = [Ascend(), Ascend(Friendly()), Ascend(ExponentialAverage(), SurrogateGap()), InnerSteps(2)]


@pytest.mark.parametrize(("wrapper", "several"), PLACES)
@pytest.mark.parametrize("ball", EUCLIDEAN, ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("method", SOURCES, ids=repr)
def test_the_record_s_radius_is_the_length_of_e(ball, wrapper, method, several):
    """Also where e is a sum of vectors, where groups have radii of their own, and where a mask wraps no norm."""
    problem = make_problem("mlp")
    problem.group_options = [{"rho": 0.1}, {"rho": 0.2}] if several else []
    base, points = torch.optim.SGD(problem.parameters(), lr=0.1), []
    opt = SharpnessAware(base, 0.1, ball=WRAPPERS[wrapper](ball), method=method, model=problem.model)
    loss = problem.loss
    problem.loss = lambda: (points.append([p.detach().clone() for p in problem.model.parameters()]), loss())[1]
    for t in range(3):
        problem.start(t)
        points.clear()
        opt.step(problem.closure(opt))
        e = torch.cat([(there - w).flatten() for there, w in zip(points[-1], points[0], strict=True)])
        assert float(opt.last.radius) == pytest.approx(float(e.norm()), rel=1e-9)


BAD = [
    (lambda: Lp(0.5), ValueError, "p = 0.5"),
    (lambda: Lp("2"), TypeError, "p = '2'"),
    (lambda: Adaptive(-1), ValueError, "eta = -1"),
    (lambda: Adaptive(granularity="block"), ValueError, "granularity = 'block'"),
    (lambda: Fisher(math.inf), ValueError, "eta = inf"),
    (lambda: LossBudget(-0.1), ValueError, "sigma = -0.1"),
    (lambda: fenland.FullNorm(3.0), TypeError, "full_norm = 3.0"),
    (lambda: Sparse(sparsity=1.5), ValueError, "sparsity = 1.5"),
    (lambda: Sparse(3), TypeError, "inner = 3"),
    (lambda: Sparse(fenland.Riemannian()), ValueError, "flat ball"),
    (lambda: ZScore(scope="tensor"), ValueError, "scope = 'tensor'"),
    (lambda: RandomTensors(beta=0.0), ValueError, "beta = 0"),
    (lambda: OnlyLayers(layers=()), TypeError, "layers"),
    (lambda: Friendly(average="both"), ValueError, "average = 'both'"),
    (lambda: Friendly(decay=2.0), ValueError, "decay = 2.0"),
    (lambda: ExponentialAverage(theta=-1.0), ValueError, "theta = -1.0"),
    (lambda: InnerSteps(0), ValueError, "n = 0"),
    (lambda: InnerSteps(2, "half"), ValueError, "convention = 'half'"),
    (lambda: fenland.HardSamples(1.5), ValueError, "ascent = 1.5"),
    (lambda: fenland.LossIncrease("all"), TypeError, "keep = 'all'"),
    (lambda: Penalty("x"), TypeError, "alpha = 'x'"),
    (lambda: Weighted(1.0), ValueError, "gamma = 1.0"),
    (lambda: Control("e"), ValueError, "direction = 'e'"),
    (lambda: Renormalize(3), TypeError, "method = 3"),
    (lambda: Renormalize(cap=0.0), ValueError, "cap = 0.0"),
    (lambda: Ascend(3), TypeError, "source = 3"),
    (lambda: Ascend(combine=3), TypeError, "combine = 3"),
    (lambda: InnerSteps(combine=3), TypeError, "combine = 3"),
    (lambda: EveryK(0), ValueError, "k = 0"),
    (lambda: EveryK(2.5), TypeError, "k = 2.5"),
    (lambda: WithProbability(1.5), ValueError, "p = 1.5"),
    (lambda: AdaptiveToNorm(0), ValueError, "total = 0"),
    (lambda: Window(-1), ValueError, "start = -1"),
    (lambda: TiedToLearningRate(0.1, 0.2, 0.0), ValueError, "lr_max = 0.0"),
    (lambda: Cosine(0.1, 0.0, 0), ValueError, "steps = 0"),
    (lambda: WarmUp(-0.1, 3), ValueError, "after = -0.1"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_arguments_are_named(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_combinations_that_cannot_work_are_refused_at_construction():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))

    def base():
        return torch.optim.SGD(model.parameters(), lr=0.1)

    with pytest.raises(ValueError, match="covers none"):
        fenland.SAMON(base(), model=model)
    with pytest.raises(ValueError, match="names"):
        fenland.SAMON(base())
    with pytest.raises(ValueError, match="names"):
        fenland.ASAM(base(), include_bias=False)
    with pytest.raises(ValueError, match="model="):
        fenland.SAMON(torch.optim.SGD(model.named_parameters(), lr=0.1))
    with pytest.raises(ValueError, match="flat ball"):
        fenland.NStepSAM(base(), ball=fenland.Riemannian())
    with pytest.raises(ValueError, match="clean gradient"):
        Renormalize(fenland.BaseMomentum())
    with pytest.raises(ValueError, match="never computes"):
        fenland.RandomSAM(base(), when=AdaptiveToNorm(10))
    with pytest.raises(ValueError, match="fall back on"):
        fenland.RandomSAM(base(), nonfinite="base_step")


@pytest.mark.parametrize("name", ["source", "combine"])
def test_a_method_has_a_source_and_a_combine_of_its_own(name):
    """Both at once would leave open which one counts; a method in a part's place is told where it belongs."""
    base = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=f"pass {name} to the method"):
        fenland.MSAM(base, **{name: {"source": Friendly(), "combine": Penalty()}[name]})
    with pytest.raises(TypeError, match="pass it as method="):
        SharpnessAware(base, **{name: Reuse()})
    assert "rho" not in base.param_groups[0], "what was refused left the base as it was"


def test_ranks_that_look_at_their_own_gradients_are_refused(monkeypatch):
    """With sync="local" AE-SAM would ascend on one rank and not on the other."""
    monkeypatch.setattr("fenland.step.reduction.world", lambda: 2)
    base = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(ValueError, match='sync="global"'):
        fenland.AESAM(base, total_steps=5, sync="local")


WHOLE = [Adaptive(granularity="layer"), Adaptive(granularity="filter"), Spectral(), Sparse(), ZScore()]


@pytest.mark.parametrize("choice", [*WHOLE, fenland.AtRandomPoint(), Centralized()], ids=lambda c: type(c).__name__)
def test_rules_that_need_whole_tensors_refuse_sharded_ones(monkeypatch, choice):
    monkeypatch.setattr("fenland.rules.parameters.any_dtensor", lambda params: True)
    base = torch.optim.SGD([nn.Parameter(torch.ones(2, 2))], lr=0.1)
    names = {fenland.Ball: "ball", fenland.Source: "source", fenland.Method: "method"}
    part = {name: choice for kind, name in names.items() if isinstance(choice, kind)}
    with pytest.raises(ValueError, match="sharded"):
        SharpnessAware(base, 0.1, **part)
    SharpnessAware(base, 0.1, ball=Adaptive())  # element by element is fine


def test_every_rank_draws_the_same():
    """Decisions and draws are functions of seed and step alone: another process, another generator state, the same."""
    for when in (WithProbability(0.4, seed=3), EveryK(3, 1), Window(2, 9)):
        first = [when.ascends(t, torch.ones(()), {}) for t in range(30)]
        torch.manual_seed(5)
        assert [type(when)(**vars(when)).ascends(t, torch.ones(()), {}) for t in range(30)] == first
        assert any(first)
        assert not all(first)


def test_schedules_of_the_radius():
    assert [round(Cosine(1.0, 0.0, 4)(t), 6) for t in (0, 2, 4, 9)] == [1.0, 0.5, 0.0, 0.0]
    assert [WarmUp(0.4, 4)(t) for t in (0, 1, 3, 7)] == [0.1, 0.2, 0.4, 0.4]
    assert WarmUp(Cosine(1.0, 0.0, 4), 2)(0) == 0.5
    tied = TiedToLearningRate(0.1, 0.6, 3e-3)
    assert [round(tied.at(x), 6) for x in (0.0, 1.5e-3, 3e-3, 1.0)] == [0.1, 0.35, 0.6, 0.6]
    w = nn.Parameter(torch.ones(3))
    opt = fenland.GSAM(torch.optim.SGD([w], lr=0.1), rho=TiedToLearningRate(0.1, 0.5, 0.1))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    seen = []
    for _ in range(3):
        opt.step(lambda: _square(opt, w))
        seen.append(float(opt.last.radius))
        scheduler.step()
    assert seen == pytest.approx([0.5, 0.3, 0.2], rel=1e-5)


def _square(opt, w):
    opt.zero_grad()
    loss = (w**2).sum()
    loss.backward()
    return loss


def test_norm_layers_are_found_by_type_under_any_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn_like, self.shortcut = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))

        def forward(self, x):
            return self.shortcut(self.bn_like(x))

    model = Odd()
    opt = fenland.SAMON(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3, model=model)
    points = []

    def closure():
        opt.zero_grad()
        points.append([p.detach().clone() for p in model.parameters()])
        loss = (model(torch.linspace(-1, 1, 20).reshape(5, 4)) ** 3).sum()
        loss.backward()
        return loss

    opt.step(closure)
    moved = {
        name
        for (name, _), a, b in zip(model.named_parameters(), points[0], points[1], strict=True)
        if not torch.equal(a, b)
    }
    assert moved == {"shortcut.1.weight", "shortcut.1.bias"}
    assert float(opt.last.radius) == pytest.approx(0.3)
