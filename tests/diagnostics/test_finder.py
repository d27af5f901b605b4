"""The range test for rho: its numbers, its proposal, its picture."""

import math

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fenland
from fenland.diagnostics.finder import find_rho

ONE = [torch.ones(1)]


def net():
    torch.manual_seed(0)
    return nets.Conv()


def test_on_a_quadratic_the_curves_are_the_closed_forms():
    a = torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64))
    model = nets.Linear(a)
    g = a @ model.w.detach()
    found = find_rho(model, nets.value, ONE, rhos=[0.3, 0.1])
    assert [p.rho for p in found.points] == [0.1, 0.3]
    for p in found.points:
        e = p.rho * g / g.norm()
        h = g + a @ e
        assert p.rise.value == pytest.approx(float(g @ e + e @ a @ e / 2))
        assert p.slope == pytest.approx(p.rho * float(g.norm()))
        assert p.cosine.value == pytest.approx(float(g @ h / g.norm() / h.norm()))
        assert p.gamma.value == pytest.approx(float(g.norm() / h.norm()))
        assert math.isnan(p.rise.low)


def test_every_batch_climbs_by_its_own_gradient():
    model, batches = net(), nets.images((6, 6, 6))
    found = find_rho(model, nets.cross_entropy, batches, rhos=[0.2], mode="eval")
    alone = [fenland.sharpness(model, nets.cross_entropy, [b], rho=0.2).value for b in batches]
    assert found.points[0].rise.value == pytest.approx(sum(alone) / 3, rel=1e-4)
    assert found.points[0].rise.low < found.points[0].rise.value < found.points[0].rise.high
    assert find_rho(model, nets.cross_entropy, batches, rhos=[0.2], limit=2).batches == 2


def test_the_proposal_is_where_the_cosine_falls_to_nine_tenths():
    model, batches = net(), nets.images()
    found = find_rho(model, nets.cross_entropy, batches)
    assert len(found.points) == 25
    there = find_rho(model, nets.cross_entropy, batches, rhos=[found.proposal]).points[0]
    assert there.cosine.value == pytest.approx(0.9, abs=0.01)
    assert found.low is None or found.low < found.proposal
    assert found.proposal < found.high
    assert f"proposal: rho = {found.proposal:.2g}" in str(found)


@pytest.mark.parametrize(
    "make", [fenland.USAM, fenland.ASAM, fenland.SAM, fenland.LpSAM, fenland.SSAM], ids=lambda f: f.__name__
)
def test_the_ball_and_its_scale_are_the_optimizer_s(make):
    """The default grid spans the same |e| in every ball, and the proposal means the same."""
    model, batches = net(), nets.images()
    options = {"p": math.inf} if make is fenland.LpSAM else {}
    options |= {"include_bias": True} if make is fenland.ASAM else {}
    optimizer = make(torch.optim.SGD(model.parameters(), lr=0.1), model=model, **options)
    found = find_rho(model, nets.cross_entropy, batches, optimizer)
    assert found.ball == repr(optimizer.rules.ball)
    optimizer.param_groups[0]["rho"] = found.proposal
    report = fenland.diagnose(model, nets.cross_entropy, batches[:1], optimizer)
    assert report.ascent.cosine == pytest.approx(0.9, abs=0.08)


def test_no_proposal_says_why():
    model, batches = net(), nets.images()
    small = find_rho(model, nets.cross_entropy, batches, rhos=[1e-6, 1e-5])
    assert small.proposal is None
    assert "try larger" in small.reason
    large = find_rho(model, nets.cross_entropy, batches, rhos=[50.0, 100.0])
    assert large.proposal is None
    assert "try smaller" in large.reason
    assert "rho = none" in str(large)


def test_a_loss_that_breaks_far_away_is_left_out():
    model = nn.Linear(1, 1, bias=False)

    with torch.no_grad():
        model.weight.fill_(1.0)

    def breaks(model, x):
        w = model.weight.sum()
        return w * math.nan if w.detach() > 1.5 else w**2

    found = find_rho(model, breaks, ONE, rhos=[0.1, 1.0])
    assert found.points[0].finite == 1
    assert found.points[1].finite == 0
    assert math.isnan(found.points[1].rise.value)
    assert "0% of the batches finite" in str(found)
    assert model.weight.item() == 1.0


@pytest.mark.parametrize("mode", ["train", "eval", "keep"])
def test_nothing_is_changed(mode):
    model = net()
    model(nets.images()[0][0]).sum().backward()
    optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    before = nets.state(model)
    find_rho(model, nets.cross_entropy, nets.images(), optimizer, mode=mode, points=4)
    assert nets.same(before, nets.state(model))
    assert optimizer.param_groups[0]["rho"] == 0.05


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    found = find_rho(net(), nets.cross_entropy, nets.images(), points=8)
    figure = found.plot(tmp_path / "rho.png")
    assert (tmp_path / "rho.png").read_bytes()[:4] == b"\x89PNG"
    upper, lower = figure.axes
    assert upper.get_ylabel().startswith("loss rise")
    assert [p.rho for p in found.points] == list(lower.lines[0].get_xdata())
    assert f"{found.proposal:.2g}" in figure.get_suptitle()
    find_rho(net(), nets.cross_entropy, nets.images()[:1], rhos=[1e-6]).plot()  # no interval, no proposal


REFUSED = [
    (ValueError, "rhos", {"rhos": []}),
    (ValueError, "rhos", {"rhos": [0.0]}),
    (ValueError, "rhos", {"rhos": [-0.1]}),
    (ValueError, "rhos", {"rhos": [math.nan]}),
    (ValueError, "points = 1", {"points": 1}),
    (ValueError, "limit = 0", {"limit": 0}),
    (ValueError, "level = 1", {"level": 1.0}),
    (TypeError, "optimizer = ", {"optimizer": "SAM"}),
    (TypeError, "ball = ", {"ball": "L2"}),
]


@pytest.mark.parametrize(("error", "match", "options"), REFUSED, ids=[f"{m} {o}" for _, m, o in REFUSED])
def test_refused_by_name(error, match, options):
    with pytest.raises(error, match=match):
        find_rho(net(), nets.cross_entropy, nets.images(), **options)


def test_more_bad_input():
    model, batches = net(), nets.images()
    optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(ValueError, match="the optimizer has one"):
        find_rho(model, nets.cross_entropy, batches, optimizer, ball=fenland.Lp(p=1))
    with pytest.raises(ValueError, match="none in it"):
        find_rho(model, nets.cross_entropy, [])
    with pytest.raises(TypeError, match="one-shot"):
        find_rho(model, nets.cross_entropy, iter(batches))
    with pytest.raises(ValueError, match="must be finite"):
        find_rho(model, lambda m, b: F.cross_entropy(m(b[0]), b[1]) * math.nan, batches)
    still = nets.Linear(torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="the gradient is zero"):
        find_rho(still, nets.value, ONE)


def test_torch_s_optimizer_says_what_moves_and_has_no_ball():
    net, other = nets.Conv(), nets.Conv()
    base, data = torch.optim.SGD([net.conv.weight], lr=0.1), nets.images()
    one = fenland.find_rho(net, nets.cross_entropy, data, base, ball=fenland.Adaptive(), rhos=np.array([0.1, 0.2]))
    two = fenland.find_rho(
        net, nets.cross_entropy, data, fenland.ASAM(torch.optim.SGD([net.conv.weight], lr=0.1)), rhos=[0.1, 0.2]
    )
    assert one.points == two.points
    with pytest.raises(ValueError, match="none of the model's trainable parameters"):
        fenland.find_rho(net, nets.cross_entropy, data, torch.optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(TypeError, match=r"rhos = 0\.1: must be a list"):
        fenland.find_rho(net, nets.cross_entropy, data, rhos=0.1)
