"""The machinery around the rules: problems, grids, goals, losses, noise, samples, and the compiled engine."""

import math
import os
from collections.abc import Iterator

import pytest
import torch

import fenland
from fenland.lab.replicas import (
    Beale,
    FromFunction,
    LinearAutoencoder,
    MatrixSensing,
    Noise,
    Quadratic,
    Quartic,
    Saddle,
    grid,
    has_compiler,
    near,
    rule,
    run,
    trajectories,
)

ALL = [
    Quartic(),
    Quartic(split=False),
    Quadratic((1.0, -2.0, 3.0)),
    Saddle(0.5, 0.1),
    Beale(),
    Beale(split=False),
    LinearAutoencoder(4, "sum"),
    LinearAutoencoder(4, "half"),
    LinearAutoencoder(4, "samples"),
    LinearAutoencoder(4, "elements"),
    MatrixSensing(6, 2),
]


def draw(problem, count=5, scale=1.0):
    return scale * torch.randn(count, problem.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("problem", ALL, ids=str)
def test_gradients_are_those_of_autograd(problem):
    w = [x.requires_grad_() for x in problem.pack(draw(problem))]
    wanted = torch.autograd.grad(problem.value(w).sum(), w)
    for x, y in zip(problem.gradient(w), wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_known_values():
    quartic, beale = Quartic(), Beale()
    torch.testing.assert_close(
        quartic.value(quartic.pack(torch.tensor(quartic.minima))), torch.full((2,), -0.25).double()
    )
    points = beale.pack(torch.tensor([[3.0, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(beale.value(points), torch.tensor([0.0, 14.203125]).double())
    assert all(x.abs().max() < 1e-12 for x in beale.gradient(points))
    eye = LinearAutoencoder(20, "samples")
    zero = eye.pack(torch.zeros(1, 800))
    assert eye.value(zero).item() == 1.0
    sensing = MatrixSensing(6, 2)
    assert sensing.value([sensing.truth[None]]).item() < 1e-25


def test_the_quartics_curvature():
    w = torch.ones(2, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: Quartic(split=False).value([x[None]])[0], w)
    assert torch.linalg.eigvalsh(hessian)[-1].item() == pytest.approx(Quartic().curvature)


def test_any_function_is_a_problem():
    ours, beale = FromFunction(lambda w: Beale(split=False).value([w[0][None]])[0], ((2,),)), Beale(split=False)
    w = beale.pack(draw(beale))
    torch.testing.assert_close(ours.value(w), beale.value(w))
    torch.testing.assert_close(ours.gradient(w)[0], beale.gradient(w)[0])


def test_points_are_packed_and_unpacked():
    problem = LinearAutoencoder(3)
    points = draw(problem)
    assert torch.equal(problem.unpack(problem.pack(points)), points)
    with pytest.raises(ValueError, match=r"must be \(R, 18\)"):
        problem.pack(points[:, :5])


def test_a_grid_is_the_product():
    problem = Quartic()
    many = grid(problem.pack(draw(problem, 3)), rho=[0.1, 0.2], lr=[0.1, 0.2, 0.3, 0.4], momentum=0.5)
    assert many.shape == (2, 4, 1, 3)
    assert many.replicas == 24
    assert many.rho.reshape(many.shape)[1, 2, 0, 1] == 0.2
    assert many.lr.reshape(many.shape)[1, 2, 0, 1] == 0.3
    assert torch.equal(many.start[0].reshape(many.shape)[1, 3, 0], many.start[0][:3])


def test_wrong_arguments_are_named():
    problem = Quartic()
    start = problem.pack(draw(problem, 2))
    with pytest.raises(ValueError, match="rho"):
        grid(start, rho=-1.0)
    with pytest.raises(ValueError, match="nothing to run"):
        grid(start, rho=[])
    with pytest.raises(ValueError, match="method = 'SAMM'"):
        rule("SAMM")
    with pytest.raises(ValueError, match="momentum > 0"):
        run(problem, "MSAM", grid(start), 1)
    with pytest.raises(ValueError, match="one radius"):
        run(problem, "LESAM", grid(start, rho=[0.1, 0.2]), 1)
    with pytest.raises(ValueError, match="start has weights"):
        run(Quartic(split=False), "SAM", grid(start), 1)
    with pytest.raises(ValueError, match="no elementwise"):
        run(Quartic(split=False), "SAM", grid([torch.ones(2, 2).double()]), 1, engine="compiled")
    with pytest.raises(ValueError, match="step by step"):
        run(problem, "RST", grid(start), 1, engine="compiled")
    clipped = fenland.SAM(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), max_norm=1.0)
    with pytest.raises(ValueError, match="max_norm"):
        rule(clipped)
    with pytest.raises(ValueError, match="needs a goal"):
        run(problem, "SAM", grid(start), 1).rate()
    with pytest.raises(ValueError, match="2 coordinates"):
        near(problem, [(1.0,)], 0.1)


def test_without_a_radius_every_rule_is_the_base():
    problem = Quartic()
    many = grid(problem.pack(draw(problem)), rho=[0.0, 0.1], lr=0.1, momentum=[0.0, 0.5])
    plain = run(problem, "SGD", many, 30)
    half = many.replicas // 2
    for name in ("SAM", "SSAM", "GSAM", "WSAM", "GNP", "XSAM", "LookSAM", "VaSSO"):
        out = run(problem, name, many, 30)
        assert torch.equal(out.w[0][:half], plain.w[0][:half]), name
        assert not torch.equal(out.w[0][half:], plain.w[0][half:]), name


def test_an_optimizers_choices_make_a_rule():
    base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    made = rule(
        fenland.SharpnessAware(base, method=fenland.Renormalize(fenland.Ascend(combine=fenland.SurrogateGap(0.5))))
    )
    problem = Quartic()
    out = run(problem, made, grid(problem.pack(draw(problem)), lr=0.05), 20)
    assert (out.lost == -1).all()


def test_goals_losses_and_samples():
    problem = Quartic()
    start = problem.pack(torch.tensor([[1.0, 1.0], [0.5, 0.6], [50.0, 0.0]]))
    out = run(
        problem,
        "SSAM-U",
        grid(start, rho=0.1, lr=0.2),
        100,
        reached=near(problem, problem.minima, 1e-3),
        bound=1e3,
        sample_every=25,
    )
    assert out.first_hit.tolist()[0] == 0
    assert 0 < out.first_hit.tolist()[1] < 100
    assert out.first_hit.tolist()[2] == -1
    assert out.lost.tolist()[:2] == [-1, -1]
    assert out.lost.tolist()[2] > 0
    assert out.sampled == [0, 25, 50, 75, 100]
    assert torch.equal(out.samples[0][-1], out.w[0])
    assert torch.equal(out.samples[0][0], start[0])
    assert out.rate().item() == pytest.approx(2 / 3)


def test_what_is_not_finite_stays_as_the_optimizer_leaves_it():
    problem = Quartic()
    out = run(problem, "USAM", grid(problem.pack(torch.tensor([[50.0, 0.0]])), rho=0.1, lr=0.2), 50)
    assert out.lost.item() > 0
    assert torch.isfinite(out.w[0]).all()
    before = run(problem, "USAM", grid(problem.pack(torch.tensor([[50.0, 0.0]])), rho=0.1, lr=0.2), out.lost.item() - 1)
    assert torch.equal(before.w[0], out.w[0])


@pytest.mark.parametrize("where", ["shared", "independent", "descent"])
def test_noise_has_the_variance_that_it_says(where):
    """USAM on one mode l: d = (1 + rho l) l w + c * noise, c^2 = (1 + rho l)^2, 1 + (rho l)^2 or 1."""
    rho, curvature, std, lr = 0.5, 1.0, 0.3, 0.1
    problem = Quadratic((curvature,))
    start = problem.pack(torch.zeros(40000, 1))
    out = run(problem, "USAM", grid(start, rho=rho, lr=lr), 1, noise=Noise(std, where, seed=1))
    power = {"shared": (1 + rho * curvature) ** 2, "independent": 1 + (rho * curvature) ** 2, "descent": 1.0}[where]
    assert out.w[0].std().item() == pytest.approx(lr * std * math.sqrt(power), rel=0.02)


@pytest.mark.parametrize("where", ["shared", "independent", "descent"])
def test_a_radius_of_zero_among_others_is_as_noisy_as_sgd(where):
    problem = Quadratic((1.0,))
    start = problem.pack(torch.zeros(4000, 1).double())
    out = run(problem, "USAM", grid(start, rho=[0.0, 0.5], lr=0.1), 1, noise=Noise(2.0, where))
    assert out.w[0][:4000].std().item() == pytest.approx(0.2, rel=0.05)


def test_noise_does_not_depend_on_the_number_of_replicas():
    problem = Quartic()
    start = problem.pack(draw(problem, 300))
    many = run(problem, "SAM", grid(start), 5, noise=Noise(0.1))
    few = run(problem, "SAM", grid([x[:7] for x in start]), 5, noise=Noise(0.1))
    assert torch.equal(many.w[0][:7], few.w[0])


def test_blocks_do_not_matter(monkeypatch):
    problem = Quartic()
    many = grid(problem.pack(draw(problem, 100)), rho=[0.05, 0.1], lr=0.05)
    whole = run(problem, "SAM", many, 20, reached=near(problem, problem.minima, 0.1))
    monkeypatch.setattr(trajectories, "_BLOCK", 46)
    parts = run(problem, "SAM", many, 20, reached=near(problem, problem.minima, 0.1))
    torch.testing.assert_close(parts.w, whole.w, rtol=1e-13, atol=1e-13)
    assert torch.equal(parts.first_hit, whole.first_hit)


@pytest.fixture
def torch_tidied() -> Iterator[None]:
    """Torch leaves an environment variable of its own behind when it compiles."""
    yield
    os.environ.pop("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", None)


@pytest.mark.slow
@pytest.mark.usefixtures("torch_tidied")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["SAM", "SSAM-U", "GSAM", "FriendlySAM", "SGD"])
def test_compiled_steps_are_the_plain_ones(name):
    problem = Quartic()
    many = grid(problem.pack(draw(problem, 300)), rho=[0.0, 0.05, 0.1], lr=[0.02, 0.03], momentum=[0.0, 0.5])
    options = {"reached": near(problem, problem.minima, 0.3), "bound": 1e3, "noise": Noise(0.01), "sample_every": 11}
    plain = run(problem, name, many, 50, engine="plain", **options)
    fast = run(problem, name, many, 50, engine="compiled", **options)
    assert fast.engine == "compiled"
    torch.testing.assert_close(fast.w, plain.w, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast.samples, plain.samples, rtol=1e-12, atol=1e-12)
    assert torch.equal(fast.first_hit, plain.first_hit)
    assert torch.equal(fast.lost, plain.lost)


def test_without_a_compiler_the_plain_engine_runs(monkeypatch):
    monkeypatch.setattr(trajectories, "has_compiler", lambda: False)
    monkeypatch.setattr(trajectories, "_WORTH", 0)
    problem = Quartic()
    many = grid(problem.pack(draw(problem)))
    assert run(problem, "SAM", many, 5).engine == "plain"
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        run(problem, "SAM", many, 5, engine="compiled")
