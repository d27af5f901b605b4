"""Sharpness on quadratics, where each measure has a closed form, and on small networks."""

import math

import nets
import pytest
import torch

import fenland
from fenland.rules import Adaptive, Fisher, InfNorm, Lp, OnlyLayers, Riemannian, Spectral, Unnormalized

SPREAD = [0.5, 1.0, 2.0, 4.0]
ONE = [torch.ones(1)]


def quadratic(eigenvalues=SPREAD):
    return nets.Linear(nets.symmetric(eigenvalues))


def conv():
    torch.manual_seed(0)
    return nets.Conv()


def rise(model, e):
    w, a = model.w.detach(), model.a
    return float(0.5 * (w + e) @ a @ (w + e) - 0.5 * w @ a @ w)


def test_first_order_is_sams():
    model, rho = quadratic(), 0.3
    g = model.a @ model.w.detach()
    found = fenland.sharpness(model, nets.value, ONE, rho=rho)
    assert found.value == pytest.approx(rise(model, rho * g / g.norm()), rel=1e-12)
    assert found.slope == pytest.approx(rho * float(g.norm()), rel=1e-12)
    assert found.loss == pytest.approx((0.5 * model.w @ model.a @ model.w).item(), rel=1e-12)


def test_first_order_is_what_the_optimizer_records():
    model, batches = conv().eval(), nets.images((6,))
    opt = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.2, replay_rng=False, model=model)

    def closure():
        opt.zero_grad()
        loss = nets.cross_entropy(model, batches[0])
        loss.backward()
        return loss

    opt.step(closure)
    found = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.2)
    assert found.value == pytest.approx(float(opt.last.sharpness), rel=1e-4)


@pytest.mark.parametrize("rho", [0.1, 1.0, 10.0])
def test_the_worst_case_in_a_euclidean_ball_is_the_trust_region_s(rho):
    """max of a convex quadratic on a sphere: (m*I - A) e = g with |e| = rho and m > l_max, found by bisection."""
    model = quadratic()
    g = model.a @ model.w.detach()
    low, high = 4.0, 1e4
    for _ in range(200):
        m = (low + high) / 2
        e = torch.linalg.solve(m * torch.eye(4, dtype=torch.float64) - model.a, g)
        low, high = (m, high) if e.norm() > rho else (low, m)
    found = fenland.sharpness(model, nets.value, ONE, rho=rho, kind="worst", steps=100)
    assert found.value == pytest.approx(rise(model, e), rel=1e-3)
    assert found.value >= fenland.sharpness(model, nets.value, ONE, rho=rho).value


def test_the_worst_case_in_a_box_is_at_a_corner():
    """A local maximum, which the first-order corner may be already; over several matrices it is once better."""
    rho, better = 1.0, 0
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    for seed in range(12):
        model = nets.Linear(nets.symmetric(SPREAD, seed))
        rises = [rise(model, rho * c) for c in corners]
        worst, first = (
            fenland.sharpness(model, nets.value, ONE, rho=rho, kind=kind, ball=Lp(p=math.inf)).value
            for kind in ("worst", "first_order")
        )
        assert min(abs(worst - x) for x in rises) < 1e-12
        assert first <= worst <= max(rises) + 1e-12
        better += worst > first + 1e-9
    assert better


def test_the_average_case_is_the_trace():
    """Mean over the sphere of <g, e> + e'Ae/2 is rho^2 * trace(A) / (2 n); intervals cover it as often as they say."""
    model, rho = quadratic(), 0.3
    want = rho**2 * sum(SPREAD) / 8
    hits = 0
    for seed in range(40):
        found = fenland.sharpness(model, nets.value, ONE, rho=rho, kind="average", draws=20, seed=seed)
        assert found.over == "draws"
        assert len(found.values) == 20
        hits += found.low <= want <= found.high
    assert 33 <= hits <= 40


def test_adaptive_sharpness_does_not_see_a_rescaling():
    """Two weights multiplied: (c * u) * (v / c) is the same function for every c (eta = 0)."""

    class Product(torch.nn.Module):
        def __init__(self, c):
            super().__init__()
            self.u = torch.nn.Parameter(c * torch.tensor([1.0, -2.0], dtype=torch.float64))
            self.v = torch.nn.Parameter(torch.tensor([0.5, 1.5], dtype=torch.float64) / c)

        def forward(self, x):
            return ((self.u * self.v).sum() - 1.0) ** 2

    for kind in ("first_order", "worst", "average"):
        found = [
            fenland.sharpness(Product(c), nets.value, ONE, rho=0.1, kind=kind, ball=Adaptive(eta=0.0)).value
            for c in (1.0, 8.0)
        ]
        assert found[0] == pytest.approx(found[1], rel=1e-9)
        plain = [fenland.sharpness(Product(c), nets.value, ONE, rho=0.1, kind=kind).value for c in (1.0, 8.0)]
        assert plain[1] > 2 * plain[0]
    short = fenland.sharpness(Product(1.0), nets.value, ONE, rho=0.1, adaptive=True)
    assert short.value == fenland.sharpness(Product(1.0), nets.value, ONE, rho=0.1, ball=Adaptive()).value


@pytest.mark.parametrize("ball", [Lp(p=1.5), Lp(p=math.inf), Adaptive(), Fisher(), Spectral()], ids=repr)
def test_every_norm_ball_is_kept(ball):
    """The perturbation found has the length that was asked for, in the ball's own norm."""
    model, batches = conv().double(), [(x.double(), y) for x, y in nets.images()]
    first = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.05, ball=ball)
    worst = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.05, ball=ball, kind="worst", steps=5)
    average = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.05, ball=ball, kind="average", draws=3)
    assert worst.value >= first.value > average.value
    assert first.value == pytest.approx(first.slope, rel=0.5)


def test_only_some_layers():
    model, batches = conv(), nets.images()
    only = OnlyLayers(layers=(torch.nn.BatchNorm2d,))
    found = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.5, ball=only)
    names = ["norm.weight", "norm.bias"]
    chosen = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.5, parameters=names)
    assert found.value == pytest.approx(chosen.value, rel=1e-4)


def test_m_sharpness_is_the_mean_over_micro_batches():
    model, batches = conv(), nets.images((6, 6, 5))
    found = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.3, m=2, dtype=torch.float64)
    parts = [(x[i : i + 2], y[i : i + 2]) for x, y in batches for i in range(0, len(x) - 1, 2)]
    alone = [fenland.sharpness(model, nets.cross_entropy, [p], rho=0.3, dtype=torch.float64).value for p in parts]
    assert found.values == pytest.approx(alone, rel=1e-9)
    assert found.value == pytest.approx(sum(alone) / len(alone))
    assert (found.over, found.m, found.left_out, len(found.values)) == ("micro-batches", 2, 1, 8)
    assert found.low < found.value < found.high
    whole = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.3)
    assert found.value > whole.value  # each micro-batch may choose its own e


def test_the_interval_over_batches():
    model, batches = conv(), nets.images()
    found = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.3)
    whole = [(torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]))]
    assert found.over == "batches"
    assert len(found.values) == 3
    assert found.low < found.value < found.high
    one = fenland.sharpness(model, nets.cross_entropy, whole, rho=0.3)
    assert one.value == pytest.approx(found.value, rel=1e-4)
    assert math.isnan(one.low)
    narrow = fenland.sharpness(model, nets.cross_entropy, batches, rho=0.3, level=0.5)
    assert narrow.high - narrow.low < found.high - found.low


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
@pytest.mark.parametrize("options", [{}, {"kind": "worst"}, {"kind": "average"}, {"m": 2}, {"adaptive": True}], ids=str)
def test_nothing_is_changed_bit_for_bit(mode, options):
    net = conv()
    net(nets.images()[0][0]).sum().backward()
    net.head.eval()
    before = nets.state(net)
    fenland.sharpness(net, nets.cross_entropy, nets.images(), rho=0.7, mode=mode, **options)
    assert nets.same(before, nets.state(net))


@pytest.mark.parametrize("after", range(3, 11))
def test_nothing_is_changed_by_an_exception(after):
    net, calls = conv(), 0
    before = nets.state(net)

    def breaks(net, batch):
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return nets.cross_entropy(net, batch)

    with pytest.raises(KeyboardInterrupt):
        fenland.sharpness(net, breaks, nets.images(), rho=0.7, kind="worst", mode="train")
    assert nets.same(before, nets.state(net))


REFUSED = [
    (ValueError, "rho = 0", {"rho": 0}),
    (ValueError, "rho = nan", {"rho": math.nan}),
    (ValueError, "kind = 'best'", {"kind": "best"}),
    (ValueError, "steps = 0", {"steps": 0}),
    (ValueError, "draws = 1", {"draws": 1}),
    (ValueError, "level = 2.0", {"level": 2.0}),
    (ValueError, "m = 7: no batch has so many", {"m": 7}),
    (ValueError, "give one of them", {"adaptive": True, "ball": Lp(p=1)}),
    (ValueError, "is no norm ball", {"ball": InfNorm(), "kind": "average"}),
    (ValueError, "is no norm ball", {"ball": Unnormalized(), "kind": "worst"}),
    (ValueError, "covers none of the parameters", {"ball": OnlyLayers(layers=(torch.nn.LSTM,))}),
    (TypeError, "ball =", {"ball": "L2"}),
    (TypeError, "pass an instance", {"ball": Lp}),
]


@pytest.mark.parametrize(("error", "match", "options"), REFUSED, ids=[m for _, m, _ in REFUSED])
def test_refused_by_name(error, match, options):
    with pytest.raises(error, match=match):
        fenland.sharpness(conv(), nets.cross_entropy, nets.images(), **options)


def test_a_curved_ball_is_refused():
    pytest.importorskip("geoopt")
    with pytest.raises(ValueError, match="retraction"):
        fenland.sharpness(conv(), nets.cross_entropy, nets.images(), ball=Riemannian())


def test_a_loss_that_breaks_at_the_perturbed_weights_is_named():
    model = quadratic()
    at_w = model.w.detach().clone()

    def loss_fn(model, batch):
        loss = model(batch)
        return loss if torch.equal(model.w.detach(), at_w) else loss * math.nan

    with pytest.raises(ValueError, match="must be finite"):
        fenland.sharpness(model, loss_fn, ONE)
    assert torch.equal(model.w.detach(), at_w)


@pytest.mark.parametrize("ball", [fenland.L2(), fenland.Lp(4)])
def test_the_worst_case_at_a_critical_point_is_no_zero(ball):
    """There is no gradient to climb along at w, but there is one beside it: in L2 the value is rho^2 * l_max / 2."""
    model = nets.Linear(nets.symmetric([1.0, 2.0, 3.0]))
    torch.nn.init.zeros_(model.w)
    found = fenland.sharpness(model, nets.value, [torch.ones(1)], rho=0.1, kind="worst", ball=ball, steps=200)
    average = fenland.sharpness(model, nets.value, [torch.ones(1)], rho=0.1, kind="average", ball=ball)
    assert found.value > average.value > 0
    if ball == fenland.L2():
        assert found.value == pytest.approx(0.1**2 * 3.0 / 2, rel=0.01)


def test_what_a_micro_batch_leaves_out_is_counted_in_examples():
    net = torch.nn.Linear(5, 3)
    batches = [(torch.randn(n, 5), torch.randint(0, 3, (n,))) for n in (7, 4)]
    found = fenland.sharpness(net, nets.cross_entropy, batches, m=3, size=lambda batch: batch[0].numel())
    assert found.left_out == 7 - 6 + 4 - 3
