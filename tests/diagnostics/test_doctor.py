"""The doctor against what the real optimizer does: critical learning rates, saddles, precision, and what it says."""

import math

import nets
import pytest
import torch
from torch import nn

import fenland
from fenland.diagnostics.doctor import diagnose

ONE = [torch.ones(1)]
PUBLISHED = {0.1: 0.437, 0.2: 0.348, 0.3: 0.289, 0.5: 0.216}  # USAM on the quartic (arXiv 2401.07250's question)
BASES = {"plain": {}, "momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}}
BASES |= {"decay": {"weight_decay": 0.5}}
MAKE = {
    "SGD": lambda base, rho: base,
    "USAM": lambda base, rho: fenland.USAM(base, rho=rho),
    "SSAM-U": lambda base, rho: fenland.SSAM(base, rho=rho, normalize=False),
    "SSAM": lambda base, rho: fenland.SSAM(base, rho=rho),
}


class Quartic(nn.Module):
    """x^4/4 - x*y + y^2/2: minima at (1, 1) and (-1, -1), saddle at the origin."""

    def __init__(self, x, y):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))

    def forward(self, scale):
        x, y = self.w
        return x**4 / 4 - x * y + y * y / 2


def quadratic(*eigenvalues):
    return nets.Linear(torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)))


def steps(model, optimizer, count):
    def closure():
        optimizer.zero_grad()
        loss = model(ONE[0])
        loss.backward()
        return loss.detach()

    for _ in range(count):
        optimizer.step(closure)


def distance(model, make, method, rho, lr, base, target, count):
    """How far from the target w is after `count` steps from 1e-3 beside it."""
    with torch.no_grad():
        model.w.copy_(target + 1e-3 * torch.tensor([1.0, -0.4, 0.3, 0.2][: len(target)], dtype=torch.float64))
    optimizer = make(torch.optim.SGD(model.parameters(), lr=lr, **base), rho)
    steps(model, optimizer, count)
    return float((model.w.detach() - target).norm().nan_to_num(math.inf))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", MAKE)
def test_the_critical_learning_rate_of_a_quadratic_within_2_percent(method, base):
    model, rho, target = quadratic(0.6, 1.0, 4.0), 0.3, torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        model.w.fill_(0.5)
    optimizer = MAKE[method](torch.optim.SGD(model.parameters(), lr=0.1, **BASES[base]), rho)
    limit = next(each.lr for each in diagnose(model, nets.value, ONE, optimizer).limits if each.method == method)
    below, above = (
        distance(model, MAKE[method], method, rho, share * limit, BASES[base], target, 300) for share in (0.98, 1.02)
    )
    assert below < 1e-3
    assert above > 1e-2


@pytest.mark.parametrize("rho", PUBLISHED)
def test_the_critical_learning_rate_of_the_quartic_within_2_percent(rho):
    model, target = Quartic(1.0, 1.0), torch.ones(2, dtype=torch.float64)
    report = diagnose(model, nets.value, ONE, fenland.USAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho))
    limits = {each.method: each.lr for each in report.limits}
    assert limits["USAM"] == pytest.approx(PUBLISHED[rho], rel=0.005)
    assert limits["SSAM-U"] == limits["SGD"] == pytest.approx(0.586, rel=0.005)
    for method in ("USAM", "SSAM-U"):
        ends = [
            distance(model, MAKE[method], method, rho, share * limits[method], {}, target, 300)
            for share in (0.98, 1.02)
        ]
        assert ends[0] < 1e-3
        assert ends[1] > 1e-2


def test_the_learning_rate_at_which_normalised_sam_settles_at_this_gradient_norm():
    """`now`: below it one step shrinks the steepest mode, above it lengthens it; both stay far below SGD's limit."""
    model = quadratic(4.0)
    for share, shrinks in ((0.98, True), (1.02, False)):
        with torch.no_grad():
            model.w.fill_(0.05)
        optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.01), rho=0.1)
        sam = diagnose(model, nets.value, ONE, optimizer).limits[1]
        assert sam.method == "SAM"
        assert sam.now < 0.5 * sam.lr
        optimizer.param_groups[0]["lr"] = share * sam.now
        steps(model, optimizer, 1)
        assert (abs(model.w.item()) < 0.05) == shrinks


def test_the_issues_own_sentence():
    model = Quartic(1.0 + 1e-9, 1.0)
    optimizer = fenland.USAM(torch.optim.SGD(model.parameters(), lr=0.3), rho=0.5)
    report = diagnose(model, nets.value, ONE, optimizer)
    assert report.verdict == "unstable"
    assert "USAM at lr 0.3, rho 0.5, is over its limit 0.2164; SSAM-U allows 0.5858" in report.because
    advice = [each.what for each in report.advice]
    assert advice[0] == "lower lr below 0.2164"
    assert "or use SSAM(normalize=False)" in advice
    rho = float(advice[1].rsplit(" ", 1)[1])  # "or lower rho below 0.279"
    assert fenland.theory.stable_lr(2 + math.sqrt(2), rho) == pytest.approx(0.3, rel=5e-3)


@pytest.mark.parametrize(
    ("lr", "verdict"), [(0.2, "stable"), (0.4999, "stable"), (0.5001, "unstable"), (0.8, "unstable")]
)
def test_verdicts_of_sgd(lr, verdict):
    model = quadratic(1.0, 4.0)
    assert diagnose(model, nets.value, ONE, torch.optim.SGD(model.parameters(), lr=lr)).verdict == verdict


def test_within_the_residual_the_verdict_is_the_edge():
    model = nets.Linear(nets.symmetric([*torch.linspace(0, 3.9, 100).tolist(), 4.0]))
    rough = diagnose(model, nets.value, ONE, torch.optim.SGD(model.parameters(), lr=0.5), tol=0.05)
    assert rough.largest.residual > 0.01
    assert rough.verdict == "edge"


def test_steps_that_leave_the_quadratic_model_are_no_stable_verdict():
    """On a quadratic the model is exact; far out on the quartic a step below the limit still goes beyond it."""
    model = quadratic(1.0, 4.0)
    exact = diagnose(model, nets.value, ONE, torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5))
    assert exact.strayed == pytest.approx(0.0, abs=1e-12)
    assert diagnose(model, nets.value, ONE).strayed is None
    far = Quartic(0.3, -1.0)  # flat here, steep where the gradient leads
    report = diagnose(far, nets.value, ONE, torch.optim.SGD(far.parameters(), lr=0.4, momentum=0.9))
    assert report.limits[0].lr > 1.0
    assert report.strayed > 0.5
    assert report.verdict == "edge"
    assert any("warm it up" in each.what for each in report.advice)


def test_a_saddle_that_holds_the_ascent():
    """USAM with rho*m > 1 and normalised SAM within |g| < rho*m are held; below they are not. Steps agree."""
    m = (math.sqrt(5) - 1) / 2
    held = [
        (fenland.USAM, 1.1 / m, True),
        (fenland.USAM, 0.9 / m, False),
        (fenland.SAM, 0.05, True),
        (fenland.SAM, 1e-4, False),
    ]
    for make, rho, captured in held:
        model = Quartic(1e-3, 1.1e-3)
        optimizer = make(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho)
        report = diagnose(model, nets.value, ONE, optimizer)
        assert report.saddle.strength == pytest.approx(m, rel=1e-4)
        assert report.saddle.near
        assert report.saddle.captured == captured
        assert ("A saddle holds it." in report.because) == captured
        steps(model, optimizer, 1000)
        assert (float(model.w.detach().norm()) < 0.5) == captured
    far = Quartic(1.0, 1.0)
    assert diagnose(far, nets.value, ONE, torch.optim.SGD(far.parameters(), lr=0.1)).saddle is None


def test_what_the_ascent_does_is_what_the_optimizer_records():
    torch.manual_seed(0)
    model, batch = nets.Conv().eval(), nets.images((6,))[0]
    optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.1, model=model, record_every=1)
    report = diagnose(model, nets.cross_entropy, [batch], optimizer, mode="eval")

    def closure():
        optimizer.zero_grad()
        loss = nets.cross_entropy(model, batch)
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    last, ascent = optimizer.last, report.ascent
    assert report.loss == pytest.approx(float(last.loss), rel=1e-5)
    assert report.gradient_norm == pytest.approx(float(last.grad_norm), rel=1e-5)
    assert ascent.gamma == pytest.approx(float(last.gamma), rel=1e-4)
    assert ascent.cosine == pytest.approx(float(last.cosine), abs=1e-5)
    assert ascent.realised == pytest.approx(float(last.realised_radius), rel=1e-4)
    assert ascent.rise == pytest.approx(float(last.sharpness), rel=1e-3)
    assert ascent.active


def test_an_inactive_ascent_is_seen():
    model = nn.Linear(5, 4)
    data = nets.images(shape=(5,))
    report = diagnose(
        model, nets.cross_entropy, data, fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=1e-9)
    )
    assert not report.ascent.active
    assert any("does nothing" in each.why for each in report.advice)
    off = diagnose(model, nets.cross_entropy, data, fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.0))
    assert (off.ascent, off.method) == (None, "SGD")


def test_low_precision_loses_e():
    torch.manual_seed(0)
    data = [(x.bfloat16(), y) for x, y in nets.images(shape=(5,))]
    model = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 4)).bfloat16()
    report = diagnose(
        model, nets.cross_entropy, data, fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.002), tol=0.3
    )
    assert report.ascent.fidelity < 0.9
    assert report.ascent.fidelity == pytest.approx(report.ascent.fidelity_bf16, abs=1e-6)
    assert any("float32" in each.what for each in report.advice)
    wide = model.float()
    data = nets.images(shape=(5,))
    report = diagnose(
        wide, nets.cross_entropy, data, fenland.SAM(torch.optim.SGD(wide.parameters(), lr=0.1), rho=0.002)
    )
    assert report.ascent.fidelity > 0.9999
    assert any("do not cast" in each.what for each in report.advice)


def test_radii_and_parameters_are_the_optimizers():
    """Groups with their own rho, one parameter that the optimizer does not have, an adaptive base."""
    torch.manual_seed(0)
    model, data = nets.Conv(), nets.images()
    groups = [{"params": [model.conv.weight], "rho": 0.0}, {"params": list(model.head.parameters()), "rho": 0.1}]
    report = diagnose(model, nets.cross_entropy, data, fenland.SAM(torch.optim.Adam(groups, lr=0.1), rho=0.3))
    assert report.ascent.rho == 0.1
    assert report.ascent.wanted < 0.1
    assert report.verdict == "unknown"
    assert "Adam rescales" in report.because
    assert any("groups have rho from 0 to 0.1" in each.why for each in report.advice)


@pytest.mark.parametrize("mode", ["train", "eval", "keep"])
def test_nothing_is_changed(mode):
    torch.manual_seed(0)
    model = nets.Conv()
    optimizer = fenland.SSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.1, model=model)
    model(nets.images()[0][0]).sum().backward()
    before, state = nets.state(model), str(optimizer.state_dict())
    diagnose(model, nets.cross_entropy, nets.images(), optimizer, mode=mode)
    assert nets.same(before, nets.state(model))
    assert str(optimizer.state_dict()) == state


def test_bad_input():
    model, data = nets.Conv(), nets.images()
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="none of the model's trainable parameters"):
        diagnose(model, nets.cross_entropy, data, other)
    with pytest.raises(TypeError, match="optimizer = 'SGD'"):
        diagnose(model, nets.cross_entropy, data, "SGD")
    with pytest.raises(ValueError, match="near = -1"):
        diagnose(model, nets.cross_entropy, data, near=-1)
    with pytest.raises(TypeError, match="one-shot"):
        diagnose(model, nets.cross_entropy, iter(data))
    optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    nets.cross_entropy(model, data[0]).backward()
    optimizer.ascend()
    with pytest.raises(RuntimeError, match="restore"):
        diagnose(model, nets.cross_entropy, data, optimizer)
    optimizer.restore()


def test_the_report_is_short_and_plain():
    import json

    model = quadratic(1.0, 4.0)
    optimizer = fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05)
    report = diagnose(model, nets.value, ONE, optimizer)
    text = str(report)
    assert text.count("\n") < 20
    for word in ("SAM(SGD), lr 0.1, rho 0.05", "1 example in 1 batch,", "largest eigenvalue", "gamma", "verdict: "):
        assert word in text
    assert json.loads(json.dumps(report.as_dict()))["largest"]["value"] == pytest.approx(4.0)
    assert "no optimizer" in str(diagnose(model, nets.value, ONE))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_rounding_of_the_loss_near_a_minimum_is_no_curvature(momentum):
    """In float32 a decrease of 1e-12 beside a loss of 1 rounds to nothing: that is no reason to mistrust the limits."""
    torch.manual_seed(0)
    data = [(torch.randn(200, 5), torch.randint(0, 3, (200,)))]
    net = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=momentum)
    for _ in range(400):
        optimizer.zero_grad()
        nets.cross_entropy(net, data[0]).backward()
        optimizer.step()
    for dtype in (None, torch.float64):
        report = fenland.diagnose(net, nets.cross_entropy, data, optimizer, dtype=dtype)
        assert report.gradient_norm < 1e-5
        assert report.strayed < 0.05
        assert report.verdict == "stable"


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e20])
def test_the_loss_may_have_any_unit(scale):
    """Squares of gradients and products leave float32's range long before they themselves do."""
    torch.manual_seed(0)
    data = [(torch.randn(20, 5), torch.randint(0, 3, (20,)))]
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    optimizer = fenland.SSAM(torch.optim.SGD(net.parameters(), lr=0.1 / scale), rho=0.05)
    report = fenland.diagnose(net, lambda m, b: scale * nets.cross_entropy(m, b), data, optimizer)
    optimizer.param_groups[0]["lr"] = 0.1
    one = fenland.diagnose(net, nets.cross_entropy, data, optimizer)
    for name in ("largest", "smallest"):
        assert getattr(report, name).value == pytest.approx(scale * getattr(one, name).value, rel=1e-4)
    for name in ("gamma", "cosine", "fidelity"):
        assert getattr(report.ascent, name) == pytest.approx(getattr(one.ascent, name), rel=1e-5)
    assert report.strayed == pytest.approx(one.strayed, abs=1e-3)
    assert report.verdict == one.verdict == "stable"
    turns = [
        [point.cosine.value for point in fenland.find_rho(net, f, data, rhos=[0.1, 1.0]).points]
        for f in (nets.cross_entropy, lambda m, b: scale * nets.cross_entropy(m, b))
    ]
    assert turns[0] == pytest.approx(turns[1], rel=1e-5)


def test_where_the_gradient_is_zero_no_radius_is_advised():
    model = nets.Linear(nets.symmetric([1.0, 2.0, 3.0]))
    torch.nn.init.zeros_(model.w)
    report = fenland.diagnose(model, nets.value, ONE, fenland.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1))
    assert "diagnose where there is a gradient (it is zero here" in str(report)
    assert "raise rho" not in str(report)


def test_who_steps_uphill_has_no_limit():
    net = torch.nn.Linear(5, 3)
    data = [(torch.randn(20, 5), torch.randint(0, 3, (20,)))]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, maximize=True)
    report = fenland.diagnose(net, nets.cross_entropy, data, optimizer)
    assert report.verdict == "unknown"
    assert "maximize=True steps uphill" in str(report.advice)


def test_groups_of_several_momenta_are_said():
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    data = [(torch.randn(20, 5), torch.randint(0, 3, (20,)))]
    groups = [
        {"params": net[0].parameters(), "momentum": 0.9, "nesterov": True},
        {"params": net[1].parameters(), "momentum": 0.5, "dampening": 0.5, "weight_decay": 0.1},
    ]
    report = fenland.diagnose(net, nets.cross_entropy, data, torch.optim.SGD(groups, lr=0.1))
    assert report.verdict == "stable"
    for said in ("momentum from 0.5 to 0.9", "dampening from 0 to 0.5", "weight_decay from 0 to 0.1"):
        assert said in str(report)
